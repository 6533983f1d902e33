#!/usr/bin/env python3
"""The script a careful engineer would write: SCAN, pipelined GET and PTTL, upserts of 1,000 rows.

Uses redis-py with the hiredis parser and psycopg2's execute_values. What the benchmark compares against.
Usage: careful_script.py REDIS_PORT TABLE; PostgreSQL from PGHOST, PGPORT, PGUSER.
"""
import datetime
import sys

import psycopg2
import psycopg2.extras
import redis

ROWS = 1000
PREFIX = b"user:"


def main():
    source = redis.Redis(port=int(sys.argv[1]))
    target = psycopg2.connect("dbname=postgres")
    upsert = (
        "INSERT INTO {0} (email, info, expires_at) VALUES %s ON CONFLICT (email) DO UPDATE "
        "SET info = excluded.info, expires_at = excluded.expires_at".format(sys.argv[2])
    )
    cursor = 0
    while True:
        cursor, keys = source.scan(cursor, match=PREFIX + b"*", count=ROWS)
        pipeline = source.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
            pipeline.pttl(key)
        replies = pipeline.execute()
        now = datetime.datetime.now(datetime.timezone.utc)
        rows = {}
        for key, value, ttl in zip(keys, replies[0::2], replies[1::2]):
            if value is None:
                continue
            expires_at = now + datetime.timedelta(milliseconds=ttl) if ttl >= 0 else None
            rows[key[len(PREFIX):].decode()] = (value.decode(), expires_at)
        if rows:
            with target.cursor() as statement:
                psycopg2.extras.execute_values(
                    statement, upsert, [(email, info, at) for email, (info, at) in rows.items()],
                    template="(%s, %s::jsonb, %s)", page_size=ROWS)
            target.commit()
        if cursor == 0:
            break


if __name__ == "__main__":
    main()
