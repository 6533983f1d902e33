#!/usr/bin/python3
"""Measures the memory and time of runs and verifications of many keys of every kind of mapping and prints one table. No figure makes it fail.

Usage: memory.py --redis PORT [--keys N[,N...]] [--fields N] [--elements N] [--only WORD]
  --redis       an empty Redis, which is flushed again and again
  --keys N      keys of each case; 1,000,000 by default. Collections have ten elements, and there are a tenth as many.
                With several numbers each case is measured with each of them
  --fields N    fields of one hash; 2,000,000 by default
  --elements N  elements of one list, set or sorted set; 5,000,000 by default
  --only WORD   only the cases whose names contain the word
  --check       only checks the options

What is measured is the anonymous memory of the session, or of the process that has most of it where two verify, above an
idle session that has loaded the library. That it is flat shows in the maximum of the first third beside that of the whole.
Time is that of the session's processor for each key, or for each field or element of one key, and the seconds that it took.
PostgreSQL is that of PGHOST, PGPORT and PGUSER; its processes must run on this machine.
"""
import argparse
import sys
import time

import psycopg2
import redis

from session_memory import Memory

COLLECTION = 10
BATCH = 2000  # keys or elements that one script makes

STRING = "redis.call('SET', 'k:' .. i, 'value ' .. i)"
LARGE = "redis.call('SET', 'k:1', %s)"
LARGE_TEXT = "string.rep('v', 100 * 1024 * 1024)"


class Case:
    """Keys by a script that makes the key i, and the mapping of them; without a mapping they are archived."""

    def __init__(self, name, script, columns=None, query=None, key_columns=None, options="", size="keys"):
        self.name, self.script, self.columns, self.query = name, script, columns, query
        self.key_columns, self.options, self.size = key_columns, options, size


def elements(command, value):
    """A script that makes a small collection in one call."""
    return "local a = {} for j = 1, %d do %s end redis.call('%s', 'k:' .. i, unpack(a))" % (COLLECTION, value, command)


def all_cases():
    text = dict(columns="id bigint PRIMARY KEY, v text", query="SELECT id, value AS v FROM redis_batch", key_columns="id")
    number = dict(columns="id bigint PRIMARY KEY, v bigint", query="SELECT id, value::bigint AS v FROM redis_batch", key_columns="id")
    bytes_ = dict(columns="id bigint PRIMARY KEY, v bytea", query="SELECT id, value_bytes AS v FROM redis_batch", key_columns="id", size="one")
    json_ = dict(columns="id bigint PRIMARY KEY, v jsonb", query="SELECT id, json AS v FROM redis_batch", key_columns="id", size="one")
    member = dict(columns="id bigint, v text, PRIMARY KEY (id, v)", key_columns="id,v", size="collections")
    expand = ", types => '{%s}', expand => 'elements'"
    zset = dict(member, query="SELECT id, member AS v FROM redis_batch", options=expand % "zset")
    set_ = dict(member, query="SELECT id, member AS v FROM redis_batch", options=expand % "set")
    field = dict(member, query="SELECT id, field AS v FROM redis_batch", options=expand % "hash")
    list_ = dict(query="SELECT id, position AS n, value AS v FROM redis_batch", options=expand % "list",
                 columns="id bigint, n bigint, v text, PRIMARY KEY (id, n)", key_columns="id,n", size="collections")
    append = "a[#a + 1] = "
    return [
        Case("strings, packed ledger", STRING, **text),
        Case("strings, full ledger", STRING, "v text PRIMARY KEY, id bigint", "SELECT value AS v, id FROM redis_batch", "v"),
        Case("strings, exclusive", STRING, options=", exclusive => true", **text),
        Case("strings, on_conflict nothing", STRING, options=", on_conflict => 'nothing'", **text),
        Case("strings, on_conflict fill", STRING, options=", on_conflict => 'fill'", **text),
        Case("strings, on_conflict SET", STRING, options=", on_conflict => 'v = excluded.v'", **text),
        Case("strings, half rejected by a type", "redis.call('SET', 'k:' .. i, i % 2 == 0 and 'bad' or i)", **number),
        Case("strings, half rejected by a constraint", "redis.call('SET', 'k:' .. i, i % 2 == 0 and -i or i)",
             **dict(number, columns="id bigint PRIMARY KEY, v bigint CHECK (v >= 0)")),
        Case("strings, archived", STRING),
        Case("hashes, a row each", "redis.call('HSET', 'k:' .. i, 'a', i, 'b', 'text ' .. i, 'c', 'true')",
             "id bigint PRIMARY KEY, a int, b text, c boolean",
             "SELECT id, (json->>'a')::int AS a, json->>'b' AS b, (json->>'c')::boolean AS c FROM redis_batch", "id",
             ", types => '{hash}'"),
        Case("hashes, a row per field", elements("HSET", append + "'field ' .. j " + append + "i"), **field),
        Case("sorted sets, a row per member", elements("ZADD", append + "j " + append + "'member ' .. i .. ' ' .. j"), **zset),
        Case("sets, a row per member", elements("SADD", append + "'member ' .. i .. ' ' .. j"), **set_),
        Case("lists, a row per element", elements("RPUSH", append + "'element ' .. i .. ' ' .. j"), **list_),
        Case("one hash", "redis.call('HSET', 'k:1', 'field ' .. i, i)", **dict(field, size="fields")),
        Case("one sorted set", "redis.call('ZADD', 'k:1', i, 'member ' .. i)", **dict(zset, size="elements")),
        Case("one set", "redis.call('SADD', 'k:1', 'member ' .. i)", **dict(set_, size="elements")),
        Case("one list", "redis.call('RPUSH', 'k:1', 'element ' .. i)", **dict(list_, size="elements")),
        Case("one string of 100 MB, bytea", LARGE % LARGE_TEXT, **bytes_),
        Case("one string of 100 MB, text", LARGE % LARGE_TEXT, **dict(text, size="one")),
        Case("one string of 100 MB, jsonb", LARGE % ("'[\"' .. %s .. '\"]'" % LARGE_TEXT), **json_),
    ]


class Bench:
    def __init__(self, options):
        self.options = options
        self.redis = redis.Redis(port=options.redis)
        self.admin = self.connect()
        self.ask("CREATE EXTENSION pg_redis_migrate")
        self.ask("CREATE SERVER bench FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '%d')" % options.redis)

    @staticmethod
    def connect():
        connection = psycopg2.connect("dbname=postgres")
        connection.autocommit = True
        return connection

    def ask(self, sql, connection=None):
        with (connection or self.admin).cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None

    def sizes(self, case):
        one_key = {"one": 1, "fields": self.options.fields, "elements": self.options.elements}
        if case.size in one_key:
            return [one_key[case.size]]
        return [max(keys // 10, 1) if case.size == "collections" else keys for keys in self.options.keys]

    @staticmethod
    def processor_us(session):
        """The time that the session has had a processor."""
        with open("/proc/%d/schedstat" % session.info.backend_pid) as stat:
            return int(stat.read().split()[0]) / 1000

    def load(self, case, size):
        self.redis.flushall()
        script = self.redis.register_script("for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do %s end" % case.script)
        for first in range(1, size + 1, BATCH):
            script(args=[first, min(first + BATCH - 1, size)])

    def measure(self, case, size):
        self.load(case, size)
        self.ask("DROP TABLE IF EXISTS target")
        self.ask("SELECT redis_migrate.create_migration('bench', 'bench')")
        if case.query:
            self.ask("CREATE TABLE target (%s)" % case.columns)
            self.ask("SELECT redis_migrate.add_mapping('bench', 'target', 'k:{id:int}', 'target', '%s', '{%s}', databases => '{0}'%s)" % (
                case.query.replace("'", "''"), case.key_columns, case.options))
        session = self.connect()
        # By default a set of so many members is too large, and rejected.
        self.ask("SET pg_redis_migrate.max_value_size = '1000MB'", session)
        # An idle session that has loaded the library.
        self.ask("SELECT redis_migrate.preview('bench', max_keys => 1) LIMIT 0", session)
        with Memory(session.info.backend_pid) as idle:
            pass
        for work, workers in (("run", 1), ("again", 1), ("verify", 1), ("verify", 2)):
            busy, start = self.processor_us(session), time.monotonic()
            with Memory(session.info.backend_pid, "redis_migrate verification part" if workers > 1 else None) as memory:
                self.ask("CALL redis_migrate.%s('bench', workers => %d)" % ("verify" if work == "verify" else "run", workers), session)
            seconds, busy = time.monotonic() - start, self.processor_us(session) - busy
            if work == "verify":
                state, rejected = self.ask("SELECT state, keys_rejected FROM redis_migrate.verifications ORDER BY verification_id DESC LIMIT 1")
            else:
                state, rejected = self.ask("SELECT state, rejected FROM redis_migrate.runs ORDER BY run_id DESC LIMIT 1")
            if state != "completed":
                sys.exit("%s: %s is %s" % (case.name, work, state))
            if rejected > 0 and "rejected" not in case.name:
                sys.exit("%s: %d keys were rejected" % (case.name, rejected))
            third = max(memory.samples[:max(len(memory.samples) // 3, 1)])
            name = case.name + ("" if work == "run" else ", " + work) + (", two processes" if workers > 1 else "")
            print("%-62s %10d %10.1f %10.1f %10.2f %10.1f" % (name, size, (third - idle.highest) / 1024,
                                                              (memory.highest - idle.highest) / 1024, busy / size, seconds), flush=True)
        session.close()
        self.ask("SELECT redis_migrate.drop_migration('bench')")
        self.ask("TRUNCATE redis_migrate.archived_key, redis_migrate.archive_chunk")

    def run(self):
        print("%-62s %10s %10s %10s %10s %10s" % ("MB above an idle session, and time", "keys", "1st third", "highest", "us/key", "seconds"))
        for case in all_cases():
            if self.options.only in case.name:
                for size in self.sizes(case):
                    self.measure(case, size)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--keys", type=lambda keys: [int(number) for number in keys.split(",")], default=[1000000])
    parser.add_argument("--fields", type=int, default=2000000)
    parser.add_argument("--elements", type=int, default=5000000)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return
    Bench(options).run()


main()
