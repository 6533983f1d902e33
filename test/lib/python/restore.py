#!/usr/bin/env python3
"""Restores archived keys of a migration into database 9 of the tests' Redis and compares them with the originals.

usage: restore.py MIGRATION. The database of PGDATABASE, the Redis of PRM_REDIS_PORT. Prints a line per type."""
import collections
import os
import sys

import psycopg2
import redis


def value_of(client, key):
    """A key's value in a form that can be compared, by its type."""
    kind = client.type(key).decode()
    read = {
        "string": lambda: client.get(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: sorted(client.smembers(key)),
        "hash": lambda: sorted(client.hgetall(key).items()),
        "zset": lambda: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda: (client.xrange(key), client.xinfo_groups(key)),
    }[kind]
    return kind, read(), client.execute_command("PEXPIRETIME", key)


def main():
    migration = sys.argv[1]
    port = int(os.environ["PRM_REDIS_PORT"])
    original = redis.Redis(port=port, db=0)
    restored = redis.Redis(port=port, db=9)
    rows = psycopg2.connect("").cursor()
    rows.execute(
        "SELECT key_bytes, payload, coalesce((extract(epoch FROM expires_at) * 1000)::int8, 0) "
        "FROM redis_migrate.archive WHERE migration = %s ORDER BY key_bytes", (migration,))
    equal = collections.Counter()
    for key, payload, expires_at in rows.fetchall():
        restored.restore(bytes(key), expires_at, bytes(payload), absttl=True)
        kind, *value = value_of(original, bytes(key))
        if [kind, *value] != list(value_of(restored, bytes(key))):
            print(f"{bytes(key)!r} differs")
        equal[kind] += 1
    for kind, count in sorted(equal.items()):
        print(f"{kind}: {count} restored")
    restored.flushdb()


main()
