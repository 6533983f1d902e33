#!/usr/bin/python3
"""Times the reverse feed beside what it could be without. No figure makes it fail.

Usage: reverse.py --redis PORT [--cluster] [--rows N] [--rate N] [--seconds N] [--rounds N]
  --redis      an empty Redis server
  --cluster    it is a node of a cluster
  --rows N     of the table, each of which is changed once where not the lag is measured; 200,000 by default
  --rate N     changes a second while the lag is measured; 20,000 by default
  --seconds N  how long; 15 by default
  --rounds N   times that each case is timed, in turn; medians are printed; 5 by default
  --check      only checks the options

"UPDATE" is one statement over all rows, with the triggers of the reverse feed and without. "drain" is what feed_redis
then takes to send the changes, beside redis-cli --pipe with the same commands, which knows no cluster. While the lag is measured, transactions
of 100 changes follow one another; the lag is the time from the commit of another change until Redis has the value,
looked for every 2 ms. PostgreSQL is that of PGHOST, PGPORT and PGUSER; its processes must run on this machine.
"""
import argparse
import random
import statistics
import subprocess
import time

import psycopg2
import redis
import redis.cluster

from live import InProcess, command, cpu_seconds, quantile, wait_until

AT_ONCE = 100


def connect():
    connection = psycopg2.connect(dbname="postgres")
    connection.autocommit = True
    return connection.cursor()


def change_all_the_while(ends, rows, rate):
    """Returns the changes a second that it came to."""
    cursor = connect()
    cursor.execute("PREPARE change AS UPDATE sessions SET value = $1, expires_at = now() + interval '1 day' WHERE id = ANY ($2)")
    start = time.monotonic()
    changed = 0
    while not ends.is_set():
        if changed > (time.monotonic() - start) * rate:
            time.sleep(0.001)
            continue
        ids = [str(random.randrange(1, rows)) for _ in range(AT_ONCE)]
        cursor.execute("EXECUTE change (%s, %s)", ("v%d" % changed, ids))
        changed += AT_ONCE
    return changed / (time.monotonic() - start)


class Bench:
    def __init__(self, options):
        self.options = options
        self.figures = {}
        client = redis.cluster.RedisCluster if options.cluster else redis.Redis
        self.redis = client(host="127.0.0.1", port=options.redis, decode_responses=True)
        self.cursor = connect()
        self.execute("CREATE EXTENSION pg_redis_migrate")
        self.execute("CREATE SERVER bench FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '%d'%s)"
                     % (options.redis, ", cluster 'on'" if options.cluster else ""))
        self.execute("""
            CREATE USER MAPPING FOR PUBLIC SERVER bench;
            CREATE TABLE sessions (id text PRIMARY KEY, value text, expires_at timestamptz) WITH (fillfactor = 50);
            INSERT INTO sessions SELECT i, 'v' || i, now() + interval '1 day' FROM generate_series(0, %d) AS i;
            SELECT redis_migrate.create_migration('bench', 'bench');
            SELECT redis_migrate.add_mapping('bench', 'sessions', 's:{id}', 'sessions', 'SELECT id, value, expires_at FROM redis_batch',
                '{id}', databases => '{0}')""" % (options.rows - 1))
        self.execute("VACUUM ANALYZE sessions")

    def execute(self, statement):
        self.cursor.execute(statement)

    def answer(self, statement):
        self.execute(statement)
        return self.cursor.fetchone()

    def note(self, case, value):
        self.figures.setdefault(case, []).append(value)
        print("  %-40s %12.2f" % (case, value), flush=True)

    def start(self):
        self.execute("SELECT redis_migrate.start_reverse('bench')")
        self.drained()

    def stop(self):
        self.execute("SELECT redis_migrate.stop_reverse('bench')")
        wait_until(lambda: self.worker() is None)

    def worker(self):
        row = self.answer("SELECT max(pid) FROM redis_migrate.workers WHERE kind = 'reverse feed'")
        return row[0]

    def drained(self):
        wait_until(lambda: self.answer("SELECT waiting = 0 AND NOT needs_full AND state = 'running' FROM redis_migrate.reverse_feeds")[0])

    def update(self, case):
        start = time.monotonic()
        self.execute("UPDATE sessions SET value = 'u%d' || id" % random.randrange(1000))
        self.note(case, (time.monotonic() - start) / self.options.rows * 1e6)
        self.execute("VACUUM sessions")

    def pipe(self):
        expiry = int(time.time() + 86400) * 1000
        commands = b"".join(command("SET", "s:%d" % i, "u%d" % i) + command("PEXPIREAT", "s:%d" % i, expiry)
                            for i in range(self.options.rows))
        start = time.monotonic()
        subprocess.run(["redis-cli", "-p", str(self.options.redis), "--pipe"], input=commands, check=True, stdout=subprocess.DEVNULL)
        self.note("redis-cli --pipe, keys/s", self.options.rows / (time.monotonic() - start))

    def drain(self):
        """The rows are changed while the feed waits, which is held by a lock on its table."""
        holder = psycopg2.connect(dbname="postgres")
        holder.cursor().execute("LOCK redis_migrate.reverse_feed IN EXCLUSIVE MODE")
        self.update("UPDATE with the feed, us/row")
        cpu = cpu_seconds(self.worker())
        start = time.monotonic()
        holder.close()
        self.drained()
        self.note("drain, changes/s", self.options.rows / (time.monotonic() - start))
        self.note("drain, CPU us/change", (cpu_seconds(self.worker()) - cpu) / self.options.rows * 1e6)

    def lag(self):
        load = InProcess(change_all_the_while, self.options.rows, self.options.rate)
        time.sleep(1)
        lags = []
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            value = str(len(lags))
            self.execute("UPDATE sessions SET value = '%s' WHERE id = '0'" % value)
            start = time.monotonic()
            wait_until(lambda: self.redis.get("s:0") == value)
            lags.append((time.monotonic() - start) * 1000)
            time.sleep(0.02)
        self.note("changes/s beside the lag", load.finish())
        self.note("lag p50, ms", quantile(lags, 0.5))
        self.note("lag p99, ms", quantile(lags, 0.99))
        self.drained()

    def check(self):
        """Redis has what the rows say, or the figures mean nothing."""
        self.execute("SELECT id, value FROM sessions ORDER BY random() LIMIT 1000")
        for name, value in self.cursor.fetchall():
            if self.redis.get("s:" + name) != value:
                raise SystemExit("Redis has another value of s:%s" % name)

    def run(self):
        for number in range(1, self.options.rounds + 1):
            print("round %d" % number, flush=True)
            self.update("UPDATE, us/row")
            if not self.options.cluster:
                self.pipe()
            self.start()
            self.drain()
            self.check()
            self.lag()
            self.check()
            self.stop()
        median = {case: statistics.median(values) for case, values in self.figures.items()}
        print("\nmedians of %d" % self.options.rounds)
        for case, value in median.items():
            print("%-40s %12.2f" % (case, value))
        print("%-40s %12.2f" % ("trigger, us/row", median["UPDATE with the feed, us/row"] - median["UPDATE, us/row"]))
        if not self.options.cluster:
            print("%-40s %12.2f" % ("drain beside redis-cli --pipe", median["redis-cli --pipe, keys/s"] / median["drain, changes/s"]))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--rows", type=int, default=200000)
    parser.add_argument("--rate", type=int, default=20000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        Bench(options).run()


main()
