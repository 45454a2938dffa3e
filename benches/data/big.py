#!/usr/bin/env python3
"""One value of so many MiB, of bytes that nothing compresses: `string`, `hash` (fields of 100 bytes) or `list` (items of 1 KiB).

    big.py KIND MIB | redis-cli --pipe
"""
import random
import sys

kind, mib = sys.argv[1], int(sys.argv[2])
size = mib << 20
rnd = random.Random(4)


def emit(*words):
    sys.stdout.buffer.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))


key = b"big:" + kind.encode()
if kind == "string":
    emit(b"SET", key, b"".join(rnd.randbytes(1 << 20) for _ in range(mib)))
elif kind == "hash":
    fields = size // 112
    for first in range(0, fields, 1000):
        pairs = ((b"field:%08d" % n, rnd.randbytes(98)) for n in range(first, min(first + 1000, fields)))
        emit(b"HSET", key, *(word for pair in pairs for word in pair))
else:
    for _ in range(size // (100 << 10)):
        emit(b"RPUSH", key, *(rnd.randbytes(1 << 10) for _ in range(100)))
