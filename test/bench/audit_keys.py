#!/usr/bin/python3
"""Writes SET commands for N keys of twelve families as RESP. Usage: audit_keys.py N"""

import hashlib
import random
import sys
import uuid

R = random.Random(1)
SYLLABLES = "ka lo mi ne ru so ti va be do fa gu".split()
NAMES = ["".join(R.choices(SYLLABLES, k=R.randint(2, 5))) for _ in range(50000)]
FAMILIES = [
    lambda i: f"user:{i}",
    lambda i: f"user:email:{R.choice(NAMES)}{i}@example.com",
    lambda i: f"session:{uuid.UUID(int=R.getrandbits(128))}",
    lambda i: f"profile:{R.choice(NAMES)}:{R.choice(['avatar', 'settings', 'feed'])}:{i}",
    lambda i: f"follow:{R.choice(NAMES)}:{R.choice(NAMES)}:{i}",
    lambda i: f"rate:2001:db8::{R.randint(1, 65535):x}:{i}",
    lambda i: f"cache:page:{hashlib.md5(str(i).encode()).hexdigest()}",
    lambda i: f"cache:url:https://example.com/{i}?x=1",
    lambda i: f"usage:192.0.{R.randint(0, 255)}.{R.randint(0, 255)}:daily:2026-11-{R.randint(10, 28)}:{i}",
    lambda i: f"celery-task-meta-{uuid.UUID(int=R.getrandbits(128))}",
    lambda i: f"log:198.51.100.{R.randint(0, 255)}:{1700000000 + i}.{R.randint(100000, 999999)}",
    lambda i: f"{{user{i}}}.following",
]
VALUES = ['{"name": "Ada", "tags": [1, 2, 3], "text": "%s"}' % ("x" * 60), "17", "some text"]


def main():
    out = []
    for i in range(int(sys.argv[1])):
        words = ["SET", FAMILIES[i % len(FAMILIES)](i), VALUES[i % len(VALUES)]]
        if i % 4:
            words += ["EX", str(R.randint(10000, 10000000))]
        out.append(f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words))
        if len(out) == 5000:
            sys.stdout.write("".join(out))
            out.clear()
    sys.stdout.write("".join(out))


main()
