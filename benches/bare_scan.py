"""SCAN alone: every key name of a database is brought here, and thrown away. What `sessions report` is measured against.

    bare_scan.py PORT DB [COUNT]

Replies are found by counting line ends, so that this program costs next to nothing.
"""
import socket
import sys

port, db = int(sys.argv[1]), int(sys.argv[2])
count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
server = socket.create_connection(("127.0.0.1", port))


def reply(lines_wanted):
    """One reply, whole: the number of its lines is known once its head is there."""
    data = server.recv(1 << 20)
    while data.count(b"\r\n") < lines_wanted(data):
        data += server.recv(1 << 20)
    return data


def lines_of_scan(data):
    head = data.split(b"\r\n", 4)
    return 4 + 2 * int(head[3][1:]) if len(head) > 4 else 4


server.sendall(b"SELECT %d\r\n" % db)
reply(lambda data: 1)
cursor, keys = b"0", 0
while True:
    server.sendall(b"SCAN %s COUNT %d\r\n" % (cursor, count))
    data = reply(lines_of_scan)
    head = data.split(b"\r\n", 4)
    cursor = head[2]
    keys += int(head[3][1:])
    if cursor == b"0":
        break
print(keys)
