#!/usr/bin/python3
"""Times live sync beside a replica of the same Redis and prints one table. No figure makes it fail.

Usage: live.py --redis PORT --redis-pid PID --replica PORT --replica-pid PID [--sets N] [--mix N] [--rate N] [--seconds N]
               [--rounds N] [--only WORD]
  --redis, --replica  two empty Redis servers, and their processes, which run on this machine
  --sets N, --mix N   commands that a pause has missed: SET alone, 1,000,000 by default; SET, HSET, DEL, EXPIRE, LPUSH,
                      ZADD and INCR, 300,000 by default
  --rate N            mixed commands a second while the lag is measured; 20,000 by default
  --seconds N         how long; 15 by default
  --rounds N          times that each case is timed, in turn; medians are printed; 5 by default
  --only WORD         only the cases whose names contain the word: snapshot, catch-up of SETs, catch-up of a mix, lag under
                      a mix
  --check             only checks the options

All commands are on 100,000 random keys of each type. The replica catches up after it was stopped by SIGSTOP, the live run
after it was stopped by redis_migrate.stop. The lag is the time from the reply to a SET until its row is seen, or until the
replica has the value, looked for every 2 ms. CPU seconds are those of the processes that apply, and of the replica. Live
sync is timed with one applier and with two. A GET is also timed beside two processes that only compute: so long it waits
for a core. Redis is at work for others, too, while a GET waits.
PostgreSQL is that of PGHOST, PGPORT and PGUSER; its processes must run on this machine.
"""
import argparse
import multiprocessing
import os
import random
import signal
import socket
import statistics
import sys
import time

import psycopg2
import redis

KEYS = 100000
TICKS = os.sysconf("SC_CLK_TCK")


def command(*words):
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def commands(count, kinds, seed):
    """So many random commands, as the bytes of each."""
    below = random.Random(seed).randrange
    makers = {
        "SET": lambda: command("SET", "s:%d" % below(KEYS), "v%d" % below(10**6)),
        "HSET": lambda: command("HSET", "h:%d" % below(KEYS), "a", below(100), "b", below(100)),
        "DEL": lambda: command("DEL", "s:%d" % below(KEYS)),
        "EXPIRE": lambda: command("EXPIRE", "s:%d" % below(KEYS), 100000),
        "LPUSH": lambda: command("LPUSH", "l:%d" % below(KEYS), below(100)),
        "ZADD": lambda: command("ZADD", "z:%d" % below(KEYS), below(100), "m%d" % below(5)),
        "INCR": lambda: command("INCR", "s:c%d" % below(KEYS)),
    }
    chosen = [makers[kind] for kind in kinds]
    return [chosen[below(len(chosen))]() for _ in range(count)]


class Sender:
    """Sends prepared commands, pipelined, and reads their replies, which are one line each."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, some):
        self.socket.sendall(b"".join(some))
        left = len(some)
        while left > 0:
            left -= self.socket.recv(1 << 20).count(b"\n")

    def send_all(self, some):
        for at in range(0, len(some), 1000):
            self.send(some[at:at + 1000])

    def send_at(self, some, rate):
        """Returns the commands a second that it came to."""
        start = time.monotonic()
        sent = 0
        while sent < len(some):
            due = min(int((time.monotonic() - start) * rate), len(some))
            if due - sent < rate / 200:
                time.sleep(0.005)
            if due > sent:
                self.send(some[sent:due])
                sent = due
        return sent / (time.monotonic() - start)


class InProcess:
    """A function in a process of its own: threads would wait for one another. It gets an event that tells it to end."""

    def __init__(self, function, *arguments):
        self.ends, self.result = multiprocessing.Event(), multiprocessing.SimpleQueue()
        self.process = multiprocessing.Process(target=lambda: self.result.put(function(self.ends, *arguments)), daemon=True)
        self.process.start()

    def finish(self):
        self.ends.set()
        result = self.result.get()
        self.process.join()
        return result


def get_p99(ends, port, pid):
    """Another client of the Redis: a GET every 2 ms. Milliseconds that it took, and those of them that Redis was at work."""
    client = redis.Redis(port=port)
    clock = ~pid << 3 | 2  # the processor clock of a process, see clock_getcpuclockid
    times, busy = [], []
    while not ends.is_set():
        start, used = time.perf_counter(), time.clock_gettime(clock)
        client.get("s:%d" % random.randrange(KEYS))
        times.append((time.perf_counter() - start) * 1000)
        busy.append((time.clock_gettime(clock) - used) * 1000)
        time.sleep(0.002)
    return quantile(times, 0.99), quantile(busy, 0.99)


def compute(ends):
    """A process that speaks to no server: it computes for 5 ms of each 20, about as much as each of two that follow."""
    os.setsid()  # as a process of PostgreSQL does: the kernel may share the cores out by session
    while not ends.is_set():
        start = time.perf_counter()
        while time.perf_counter() - start < 0.005:
            pass
        time.sleep(0.015)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("this takes too long")
        time.sleep(0.002)


class Replica:
    """A redis-server that follows, and may be stopped for a while."""

    name = "replica"

    def __init__(self, options):
        self.master = redis.Redis(port=options.redis)
        self.client = redis.Redis(port=options.replica)
        self.port, self.pid = options.redis, options.replica_pid

    def follow(self):
        self.client.replicaof("127.0.0.1", self.port)
        self.wait()

    def leave(self):
        self.client.replicaof("NO", "ONE")
        self.client.flushall()

    def pause(self):
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def wait(self):
        offset = self.master.info("replication")["master_repl_offset"]
        wait_until(lambda: self.client.info("replication").get("slave_repl_offset", -1) >= offset
                   and self.client.info("replication")["master_link_status"] == "up")

    def cpu(self):
        return cpu_seconds(self.pid)

    def value(self):
        value = self.client.get("s:probe")
        return value.decode() if value else None


class Live:
    """The live run."""

    name = "live sync"

    def __init__(self, options):
        self.master = redis.Redis(port=options.redis)
        self.connection = psycopg2.connect(dbname="postgres")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.execute("CREATE EXTENSION pg_redis_migrate")
        self.execute("CREATE SERVER live FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '%d')" % options.redis)
        self.execute("CREATE USER MAPPING FOR PUBLIC SERVER live")
        self.define("live", "public", "source => 'replication'")
        self.execute("PREPARE probe AS SELECT value FROM strings WHERE id = 'probe'")

    appliers = 1

    def define(self, migration, schema, source):
        """A migration of all keys into four tables of the schema."""
        self.execute("""
            CREATE TABLE %(schema)s.strings (id text PRIMARY KEY, value text, expires_at timestamptz);
            CREATE TABLE %(schema)s.hashes (id text PRIMARY KEY, fields jsonb, expires_at timestamptz);
            CREATE TABLE %(schema)s.items (id text, position bigint, value text, PRIMARY KEY (id, position));
            CREATE TABLE %(schema)s.scores (id text, member text, score float8, PRIMARY KEY (id, member));
            SELECT redis_migrate.create_migration('%(migration)s', 'live', %(source)s, databases => '{0}');
            SELECT redis_migrate.add_mapping('%(migration)s', 'strings', 's:{id}', '%(schema)s.strings',
                'SELECT id, value, expires_at FROM redis_batch', '{id}', databases => '{0}', exclusive => true);
            SELECT redis_migrate.add_mapping('%(migration)s', 'hashes', 'h:{id}', '%(schema)s.hashes',
                'SELECT id, json AS fields, expires_at FROM redis_batch', '{id}', databases => '{0}');
            SELECT redis_migrate.add_mapping('%(migration)s', 'items', 'l:{id}', '%(schema)s.items',
                'SELECT id, position, value FROM redis_batch', '{id,position}', databases => '{0}', expand => 'elements',
                exclusive => true);
            SELECT redis_migrate.add_mapping('%(migration)s', 'scores', 'z:{id}', '%(schema)s.scores',
                'SELECT id, member, score FROM redis_batch', '{id,member}', databases => '{0}', expand => 'elements',
                exclusive => true)""" % {"migration": migration, "schema": schema, "source": source})

    def load(self, source, start):
        """The seconds that a migration takes for all keys. start: statements, the last of which returns when they are there."""
        self.execute("CREATE SCHEMA loaded")
        self.define("loaded", "loaded", source)
        began = time.monotonic()
        for statement in start:
            self.execute(statement)
        seconds = time.monotonic() - began
        rows = self.answer("SELECT (SELECT count(*) FROM loaded.strings) + (SELECT count(*) FROM loaded.hashes)")[0]
        keys = len(list(self.master.scan_iter("[sh]:*", count=10000)))
        if rows != keys:
            sys.exit("the tables have %d keys, Redis has %d" % (rows, keys))
        return seconds

    def unload(self):
        self.execute("SELECT redis_migrate.drop_migration('loaded'); DROP SCHEMA loaded CASCADE")

    def execute(self, statement):
        self.cursor.execute(statement)

    def answer(self, statement):
        self.execute(statement)
        return self.cursor.fetchone()

    def follow(self):
        self.resume()
        self.wait()

    def leave(self):
        self.pause()

    def pause(self):
        self.execute("SELECT redis_migrate.stop('live')")

    def resume(self):
        self.execute("SELECT redis_migrate.start('live', live => true, workers => %d)" % self.appliers)

    def wait(self):
        self.execute("CALL redis_migrate.wait_for('live', '10 minutes')")

    def cpu(self):
        self.execute("SELECT pid FROM redis_migrate.live_appliers")
        return sum(cpu_seconds(pid) for pid, in self.cursor.fetchall())

    def read_again(self):
        return self.answer("SELECT sum(keys_read_again)::int8 FROM redis_migrate.live_sync")[0]

    def value(self):
        row = self.answer("EXECUTE probe")
        return row[0] if row else None

    def check(self):
        """The tables have a row for each key, or the figures mean nothing."""
        self.wait()
        rows = self.answer("""SELECT (SELECT count(*) FROM strings) + (SELECT count(*) FROM hashes) +
            (SELECT count(DISTINCT id) FROM items) + (SELECT count(DISTINCT id) FROM scores)""")[0]
        keys = self.master.dbsize()
        if rows != keys:
            sys.exit("the tables have %d keys, Redis has %d" % (rows, keys))


class TwoAppliers(Live):
    """The live run, with two processes that apply."""

    name = "2 appliers"
    appliers = 2

    def __init__(self, live):
        self.master, self.connection, self.cursor = live.master, live.connection, live.cursor


class Bench:
    def __init__(self, options):
        self.options = options
        self.figures = {}  # by case and who
        self.sender = Sender(options.redis)
        self.live = Live(options)
        self.followers = [self.live, TwoAppliers(self.live), Replica(options)]

    def note(self, case, who, value):
        self.figures.setdefault((case, who), []).append(value)
        print("  %-32s %-10s %12.2f" % (case, who, value), flush=True)

    def catch_up(self, what, some):
        for follower in self.followers:
            follower.follow()
            follower.pause()
            self.sender.send_all(some)
            is_live = isinstance(follower, Live)
            read_again = follower.read_again() if is_live else 0
            start = time.monotonic()
            cpu = 0 if is_live else follower.cpu()
            follower.resume()
            follower.wait()
            seconds = time.monotonic() - start
            self.note(what + ", commands/s", follower.name, len(some) / seconds)
            self.note(what + ", CPU us a command", follower.name, (follower.cpu() - cpu) / len(some) * 1e6)
            if is_live:
                self.note(what + ", read again, share", follower.name, (follower.read_again() - read_again) / len(some))
                follower.check()
            follower.leave()

    def get(self):
        return InProcess(get_p99, self.options.redis, self.options.redis_pid)

    def note_get(self, who, getter):
        for case, value in zip(("GET, p99 ms", "Redis at work for it, p99 ms"), getter.finish()):
            self.note(case, who, value)

    def lag(self, some):
        getter = self.get()
        self.sender.send_at(some, self.options.rate)
        self.note_get("alone", getter)
        getter = self.get()
        computing = [InProcess(compute) for _ in range(2)]
        self.sender.send_at(some, self.options.rate)
        self.note_get("computing", getter)
        for process in computing:
            process.finish()
        for follower in self.followers:
            follower.follow()
            probe = redis.Redis(port=self.options.redis)
            lags = []
            cpu = follower.cpu()
            getter = self.get()
            sender = InProcess(lambda _: Sender(self.options.redis).send_at(some, self.options.rate))
            while sender.process.is_alive():
                value = "probe %d" % len(lags)
                probe.set("s:probe", value)
                start = time.monotonic()
                while follower.value() != value and time.monotonic() - start < 60:
                    time.sleep(0.002)
                lags.append((time.monotonic() - start) * 1000)
                time.sleep(0.02)
            reached = sender.finish()
            self.note_get(follower.name, getter)
            start = time.monotonic()
            follower.wait()
            self.note("load, commands/s", follower.name, reached)
            self.note("lag, p50 ms", follower.name, quantile(lags, 0.5))
            self.note("lag, p99 ms", follower.name, quantile(lags, 0.99))
            self.note("behind at the end, ms", follower.name, (time.monotonic() - start) * 1000)
            self.note("load, CPU us a command", follower.name, (follower.cpu() - cpu) / len(some) * 1e6)
            probe.delete("s:probe")
            if isinstance(follower, Live):
                follower.check()
            follower.leave()

    def snapshot(self):
        """The first load of a live run beside a run over the file that SAVE writes, one process each."""
        live = self.live
        keys = live.master.dbsize()
        seconds = live.load("source => 'replication'", (
            "SELECT redis_migrate.start('loaded', live => true, workers => 1)", "CALL redis_migrate.wait_for('loaded', '10 minutes')"))
        self.note("snapshot, keys/s", "live sync", keys / seconds)
        live.execute("SELECT redis_migrate.stop('loaded')")
        live.unload()
        live.master.save()
        file = os.path.join(live.master.config_get("dir")["dir"], live.master.config_get("dbfilename")["dbfilename"])
        seconds = live.load("source => 'rdb', file => '%s'" % file, ("CALL redis_migrate.run('loaded', workers => 1)",))
        self.note("snapshot, keys/s", "dump file", keys / seconds)
        live.unload()

    def run(self):
        kinds = ("SET", "HSET", "DEL", "EXPIRE", "LPUSH", "ZADD", "INCR")
        self.sender.send_all(commands(4 * KEYS, kinds, 0))
        self.live.follow()
        self.live.leave()
        cases = {
            "snapshot": lambda seed: self.snapshot(),
            "catch-up of SETs": lambda seed: self.catch_up("catch-up of SETs", commands(self.options.sets, ("SET",), seed)),
            "catch-up of a mix": lambda seed: self.catch_up("catch-up of a mix", commands(self.options.mix, kinds, seed)),
            "lag under a mix": lambda seed: self.lag(commands(self.options.rate * self.options.seconds, kinds, seed)),
        }
        for number in range(1, self.options.rounds + 1):
            print("round %d of %d" % (number, self.options.rounds), flush=True)
            for name, case in cases.items():
                if self.options.only in name:
                    case(number)
        self.print()

    def print(self):
        columns = ("live sync", "2 appliers", "replica", "dump file", "computing", "alone")
        form = "%-36s" + 6 * " %12s" + " %8s"
        print()
        print(form % ("medians", *columns, "ratio"))
        for case in dict.fromkeys(case for case, _ in self.figures):
            row = {who: statistics.median(self.figures[case, who]) for who in columns if (case, who) in self.figures}
            beside = next((row[who] for who in ("alone", "dump file", "replica") if who in row), None)
            ratio = "%8.2f" % (row["live sync"] / beside) if beside else ""
            print(form % (case, *("%.2f" % row[who] if who in row else "" for who in columns), ratio))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--redis-pid", type=int)
    parser.add_argument("--replica", type=int)
    parser.add_argument("--replica-pid", type=int)
    parser.add_argument("--sets", type=int, default=1000000)
    parser.add_argument("--mix", type=int, default=300000)
    parser.add_argument("--rate", type=int, default=20000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        Bench(options).run()


if __name__ == "__main__":
    main()
