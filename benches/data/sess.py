#!/usr/bin/env python3
"""SESS: session strings of about 400 bytes, half JSON, half pickled, each with an expiry.

    sess.py [SESSIONS] | redis-cli --pipe        a million: 453 MB of RDB file
"""
import json
import pickle
import random
import sys

N = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
rnd = random.Random(20251122)
locs = ["en_US", "de_DE", "fr_FR", "fi_FI", "es_MX", "ja_JP", "pt_BR"]
uas = ["Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
       "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
       "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
       "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0"]
paths = ["/cart", "/account", "/search?q=shoes", "/product/%d", "/", "/checkout/step2"]
w = sys.stdout.buffer.write
buf = []
for i in range(N):
    key = b"session:%040x" % rnd.getrandbits(160)
    now = 1732200000 + rnd.randrange(0, 2592000)
    d = {"user_id": rnd.randrange(1, 5_000_000), "csrf_token": "%032x" % rnd.getrandbits(128),
         "locale": rnd.choice(locs), "created": now, "last_seen": now + rnd.randrange(0, 86400),
         "ua": rnd.choice(uas), "ip": "%d.%d.%d.%d" % tuple(rnd.randrange(256) for _ in range(4)),
         "last_path": rnd.choice(paths).replace("%d", str(rnd.randrange(100000))),
         "cart": [{"sku": "SKU-%06d" % rnd.randrange(50000), "qty": rnd.randrange(1, 5)} for _ in range(rnd.randrange(0, 4))],
         "flash": None}
    if i & 1:
        v = pickle.dumps({"managed_dict": d, "created": now + 0.25, "renewed": now + 60.5, "timeout": 1200}, 2)
    else:
        v = json.dumps(d).encode()
    ttl = rnd.randrange(7 * 86400, 60 * 86400)
    t = b"%d" % ttl
    buf.append(b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$%d\r\n%s\r\n" % (len(key), key, len(v), v, len(t), t))
    if len(buf) >= 2000:
        w(b"".join(buf)); buf.clear()
w(b"".join(buf))
