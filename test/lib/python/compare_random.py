#!/usr/bin/env python3
"""Migrates seeded random keys of every type and compares each value with what redis-py reads.

The database of PGDATABASE with its server "shop", the Redis of PRM_REDIS_PORT. Text and bytes are mixed, sizes lie on
both sides of the limits at which Redis changes encodings. Prints counts and "all equal", or the keys that differ."""
import os
import random

import psycopg2
import redis

SEED = 20240229
KEYS_PER_TYPE = 60

MAPPINGS = [
    ("string", "SELECT key_bytes, value_bytes AS value, expires_at FROM redis_batch", "{key_bytes}", None,
     "key_bytes bytea PRIMARY KEY, value bytea, expires_at timestamptz"),
    ("list", "SELECT key_bytes, position AS pos, value_bytes AS value, expires_at FROM redis_batch", "{key_bytes,pos}", "elements",
     "key_bytes bytea, pos bigint, value bytea, expires_at timestamptz, PRIMARY KEY (key_bytes, pos)"),
    ("set", "SELECT key_bytes, member_bytes AS value, md5(member_bytes) AS digest, expires_at FROM redis_batch", "{key_bytes,digest}", "elements",
     "key_bytes bytea, digest text, value bytea, expires_at timestamptz, PRIMARY KEY (key_bytes, digest)"),
    ("hash", "SELECT key_bytes, field_bytes AS field, value_bytes AS value, expires_at FROM redis_batch", "{key_bytes,field}", "elements",
     "key_bytes bytea, field bytea, value bytea, expires_at timestamptz, PRIMARY KEY (key_bytes, field)"),
    ("zset", "SELECT key_bytes, position AS pos, member_bytes AS value, score, expires_at FROM redis_batch", "{key_bytes,pos}", "elements",
     "key_bytes bytea, pos bigint, value bytea, score float8, expires_at timestamptz, PRIMARY KEY (key_bytes, pos)"),
    ("stream", "SELECT key_bytes, position AS pos, entry_id, json, expires_at FROM redis_batch", "{key_bytes,pos}", "elements",
     "key_bytes bytea, pos bigint, entry_id text, json jsonb, expires_at timestamptz, PRIMARY KEY (key_bytes, pos)"),
]


class Maker:
    """Makes random values and writes them to Redis."""

    def __init__(self, client):
        self.client = client
        self.random = random.Random(SEED)

    def text(self, longest=40):
        alphabet = "abcXYZ 0189\"\\/{}[]:,\n\täß€😀"
        return "".join(self.random.choice(alphabet) for _ in range(self.random.randint(0, longest))).encode()

    def bytes(self):
        kind = self.random.randrange(6)
        if kind == 0:
            return str(self.random.choice([0, -1, 12, 127, 128, -32768, 65536, 2**31, -2**63, 2**63 - 1, 2**63])).encode()
        if kind == 1:
            return self.random.randbytes(self.random.choice([0, 1, 63, 64, 65, 300, 5000]))
        if kind == 2:
            return self.random.choice([b"a", b"ab"]) * self.random.randint(20, 4000)  # compressible
        return self.text()

    def count(self):
        return self.random.choice([1, 2, 5, 127, 128, 129, 512, 513])

    def score(self):
        return self.random.choice([0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, float("inf"), float("-inf"), self.random.random()])

    def make(self, kind, key):
        if kind == "string":
            self.client.set(key, self.bytes())
        elif kind == "list":
            self.client.rpush(key, *(self.bytes() for _ in range(self.count())))
        elif kind == "set":
            integers = self.random.random() < 0.3
            members = {str(self.random.randint(-2**33, 2**33)).encode() if integers else self.bytes() for _ in range(self.count())}
            self.client.sadd(key, *members)
        elif kind == "hash":
            # The key of a btree row must fit into a third of a page.
            self.client.hset(key, mapping={self.text() + str(n).encode(): self.bytes() for n in range(self.count())})
        elif kind == "zset":
            self.client.zadd(key, {self.bytes() + str(n).encode(): self.score() for n in range(self.count())})
        else:
            for n in range(self.count()):
                fields = {self.text(5) + str(i).encode(): self.text() for i in range(self.random.randint(1, 4))}
                self.client.xadd(key, fields, id=f"{n // 7 + 1}-{n % 7 + 1}")
            for entry, _ in self.client.xrange(key)[::5]:
                self.client.xdel(key, entry)
        if self.random.random() < 0.4 and self.client.exists(key):
            self.client.pexpireat(key, 4102444800000 + self.random.randrange(10**9))


def read_redis(client, kind, key):
    """The rows that a key should yield, without key and expiry."""
    if kind == "string":
        return [(client.get(key),)]
    if kind == "list":
        return list(enumerate(client.lrange(key, 0, -1)))
    if kind == "set":
        return sorted((member,) for member in client.smembers(key))
    if kind == "hash":
        return sorted(client.hgetall(key).items())
    if kind == "zset":
        return [(n, member, score) for n, (member, score) in enumerate(client.zrange(key, 0, -1, withscores=True))]
    return [(n, entry.decode(), {f.decode(): v.decode() for f, v in fields.items()})
            for n, (entry, fields) in enumerate(client.xrange(key))]


COLUMNS = {"string": "value", "list": "pos, value", "set": "value", "hash": "field, value", "zset": "pos, value, score",
           "stream": "pos, entry_id, json"}


def plain(value):
    return bytes(value) if isinstance(value, memoryview) else value


def main():
    client = redis.Redis(port=int(os.environ["PRM_REDIS_PORT"]))
    connection = psycopg2.connect("")
    connection.autocommit = True
    cursor = connection.cursor()
    maker = Maker(client)
    cursor.execute("SET client_min_messages = warning")
    cursor.execute("SET pg_redis_migrate.batch_rows = 100")
    cursor.execute("SELECT redis_migrate.create_migration('random', 'shop', unmapped => 'reject')")
    for kind, query, key_columns, expand, columns in MAPPINGS:
        cursor.execute(f"CREATE TABLE random_{kind} ({columns})")
        cursor.execute("SELECT redis_migrate.add_mapping('random', %s, %s, %s, %s, %s, expand => %s, no_row => 'skip')",
                       (kind, kind + ":*", "random_" + kind, query, key_columns, expand))
        for n in range(KEYS_PER_TYPE):
            maker.make(kind, kind.encode() + b":" + (maker.random.randbytes(3) if n % 4 == 0 else b"") + str(n).encode())
    for again in (False, True):
        cursor.execute("CALL redis_migrate.run('random')")
        cursor.execute("SELECT read, rejected, migrated + skipped, balanced FROM redis_migrate.runs WHERE migration = 'random' ORDER BY run_id DESC LIMIT 1")
        print("second run:" if again else "first run:", "%s read, %s rejected, %s stored or empty, balanced %s" % cursor.fetchone())
    cursor.execute("SELECT sum(inserted + updated + deleted + folded) FROM redis_migrate.mapping_counts JOIN redis_migrate.runs USING (run_id) "
                   "WHERE runs.migration = 'random' AND run_id = (SELECT max(run_id) FROM redis_migrate.runs)")
    print("rows that the second run changed:", cursor.fetchone()[0])
    differences = 0
    for kind in COLUMNS:
        elements = 0
        for key in client.scan_iter(match=kind + ":*", count=1000):
            order = "ORDER BY pos" if "pos" in COLUMNS[kind] else ""
            cursor.execute(f"SELECT {COLUMNS[kind]} FROM random_{kind} WHERE key_bytes = %s {order}", (key,))
            rows = [tuple(plain(value) for value in row) for row in cursor.fetchall()]
            rows = rows if order else sorted(rows)
            cursor.execute(f"SELECT DISTINCT coalesce((extract(epoch FROM expires_at) * 1000)::int8, -1) FROM random_{kind} WHERE key_bytes = %s", (key,))
            expiry = [row[0] for row in cursor.fetchall()]
            wanted = read_redis(client, kind, key)
            elements += len(wanted)
            if rows != wanted or (wanted and expiry != [client.execute_command("PEXPIRETIME", key)]):
                print("differs:", key)
                differences += 1
        print(f"{kind}: {elements} values compared")
        cursor.execute(f"DROP TABLE random_{kind}")
    cursor.execute("SELECT redis_migrate.drop_migration('random')")
    print("all equal" if differences == 0 else f"{differences} keys differ")


main()
