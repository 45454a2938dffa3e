#!/usr/bin/env python3
"""MIX: all types: 200k hashes of 10 fields, 100k lists, sets and sorted sets of 20, 50k streams of 10 entries,
500 hashes of 10k fields, 10k random strings of 64 KiB.

    mix.py [SCALE] | redis-cli --pipe            1.0: 991 MB of RDB file, a third of it random bytes
"""
import sys, random, os
SC = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
rnd = random.Random(7)
out = sys.stdout.buffer
buf = []; size = 0
def emit(*a):
    global size
    p = [b"*%d\r\n" % len(a)]
    for x in a:
        if isinstance(x, str): x = x.encode()
        elif isinstance(x, int): x = b"%d" % x
        p.append(b"$%d\r\n%s\r\n" % (len(x), x))
    s = b"".join(p); buf.append(s); size += len(s)
    if size > 1 << 20:
        out.write(b"".join(buf)); buf.clear(); size = 0
def n(x): return max(1, int(x * SC))
words = ["alpha","bravo","charlie","delta","echo","foxtrot","golf","hotel","india","juliet","kilo","lima"]
W = lambda: rnd.choice(words)
for i in range(n(200000)):
    a = ["HSET", f"user:{i}"]
    for f in ("name","email","city","score","visits","plan","last_ip","ref","lang","note"):
        a += [f, {"name": f"{W()} {W()}", "email": f"{W()}{i}@example.com", "score": str(rnd.randrange(10**6)), "visits": str(rnd.randrange(1000)),
                  "last_ip": "10.%d.%d.%d" % (rnd.randrange(256), rnd.randrange(256), rnd.randrange(256))}.get(f, W())]
    emit(*a)
    if i % 10 == 0: emit("EXPIRE", f"user:{i}", 30 * 86400 + i)
for i in range(n(100000)):
    emit("RPUSH", f"queue:{i}", *[f"job-{rnd.getrandbits(48):012x}-{W()}" for _ in range(20)])
for i in range(n(100000)):
    if i % 4 == 0: emit("SADD", f"ids:{i}", *[rnd.randrange(10**7) for _ in range(20)])
    else: emit("SADD", f"tags:{i}", *[f"{W()}:{rnd.getrandbits(32):08x}" for _ in range(20)])
for i in range(n(100000)):
    a = []
    for j in range(20): a += [f"{rnd.random()*1000:.4f}" if i & 1 else rnd.randrange(10**6), f"player:{rnd.getrandbits(32):08x}"]
    emit("ZADD", f"board:{i}", *a)
for i in range(n(50000)):
    for j in range(10):
        emit("XADD", f"stream:{i}", f"{1700000000000+i*10+j}-{j}", "type", W(), "user", rnd.randrange(10**6), "amount", f"{rnd.random()*100:.2f}")
    if i % 10 == 0:
        emit("XGROUP", "CREATE", f"stream:{i}", "g1", "0")
        emit("XREADGROUP", "GROUP", "g1", "c1", "COUNT", "3", "STREAMS", f"stream:{i}", ">")
for i in range(n(500)):
    for c in range(10):
        a = ["HSET", f"bighash:{i}"]
        for j in range(1000): a += [f"field:{c*1000+j}", f"{W()}-{rnd.getrandbits(64):016x}"]
        emit(*a)
ur = open("/dev/urandom", "rb")
for i in range(n(10000)):
    emit("SET", f"blob:{i}", ur.read(65536))
out.write(b"".join(buf))
