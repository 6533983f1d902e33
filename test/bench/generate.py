#!/usr/bin/env python3
"""Writes N string keys with JSON values of 150 bytes and an expiry, as RESP for `redis-cli --pipe`.

Keys come in random order, as users sign up. The same N gives the same bytes, except for the expiry, which is EX 864000.
"""
import json
import random
import sys

VALUE_BYTES = 150


def value(email, source):
    record = {
        "email": email,
        "name": "User %d" % source.randrange(10**6),
        "plan": source.choice(["free", "pro", "team"]),
        "logins": source.randrange(1000),
        "note": "",
    }
    record["note"] = "%0*x" % (VALUE_BYTES - len(json.dumps(record)), source.getrandbits(256))
    return json.dumps(record)


def main():
    count = int(sys.argv[1])
    source = random.Random(20260101)
    numbers = list(range(count))
    source.shuffle(numbers)
    for number in numbers:
        email = "user.%07d@example.com" % number
        key, text = "user:" + email, value(email, source)
        sys.stdout.write("*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$6\r\n864000\r\n" % (len(key), key, len(text), text))


if __name__ == "__main__":
    main()
