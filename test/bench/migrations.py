#!/usr/bin/python3
"""Times migrations beside COPY of the same rows and prints one table. No figure makes it fail.

Usage: migrations.py --redis PORT --sample PORT --directory DIRECTORY [--keys N] [--rounds N] [--minutes N] [--only WORD]
  --redis      an empty Redis for keys of every kind, --sample another one for the sample application
  --keys N     strings of 150 bytes; 500,000 by default. There are two hashes for five of them, one collection for ten,
               and as many strings for two other servers
  --rounds N   times that each case is timed, in turn; medians are printed; 5 by default
  --minutes N  begins no round that would end later, as the last one was; 11 by default
  --only WORD  only the cases whose names contain the word
  --check      only checks the options

COPY reads a file on the server that has the rows in the order in which SCAN delivers their keys, into an empty table like
the target. PostgreSQL is that of PGHOST, PGPORT and PGUSER; its processes must run on this machine.
"""
import argparse
import datetime
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time

import psycopg2
import redis

from session_memory import Memory

PAGE = 1000
SERVERS = ("far_1", "far_2")  # databases of the same cluster that postgres_fdw reaches as others
COLLECTION = 20  # elements


def quoted(value):
    """A field of COPY's text format."""
    if value is None:
        return "\\N"
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


class Data:
    """Keys of one kind, in a database of their own, and the rows that they become."""

    def __init__(self, name, database, count, columns, key_columns, pattern, query, options=""):
        self.name, self.database, self.count = name, database, count
        self.columns, self.key_columns, self.pattern, self.query, self.options = columns, key_columns, pattern, query, options

    def commands(self, pipeline, number, source):
        raise NotImplementedError

    def read(self, pipeline, key):
        raise NotImplementedError

    def rows(self, key, replies):
        raise NotImplementedError

    def load(self, port):
        """In random order, as users sign up."""
        client = redis.Redis(port=port, db=self.database)
        source = random.Random(20260101)
        numbers = list(range(self.count))
        source.shuffle(numbers)
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            self.commands(pipeline, number, source)
            if len(pipeline) >= PAGE:
                pipeline.execute()
        pipeline.execute()

    def write_rows(self, port, path):
        client = redis.Redis(port=port, db=self.database)
        cursor = 0
        with open(path, "w") as file:
            while True:
                cursor, keys = client.scan(cursor, count=PAGE)
                pipeline = client.pipeline(transaction=False)
                for key in keys:
                    self.read(pipeline, key)
                replies = pipeline.execute()
                each = len(replies) // len(keys) if keys else 0
                for at, key in enumerate(keys):
                    for row in self.rows(key.decode(), replies[at * each:(at + 1) * each]):
                        file.write("\t".join(map(quoted, row)) + "\n")
                if cursor == 0:
                    break


class Strings(Data):
    def commands(self, pipeline, number, source):
        email = "user.%07d@example.com" % number
        record = {"email": email, "name": "User %d" % source.randrange(10**6), "plan": source.choice(["free", "pro", "team"]),
                  "logins": source.randrange(1000), "note": ""}
        record["note"] = "%0*x" % (150 - len(json.dumps(record)), source.getrandbits(256))
        pipeline.set("user:" + email, json.dumps(record), ex=864000)

    def read(self, pipeline, key):
        pipeline.get(key)
        pipeline.pexpiretime(key)

    def rows(self, key, replies):
        expires_at = datetime.datetime.fromtimestamp(replies[1] / 1000, datetime.timezone.utc)
        yield key[len("user:"):], replies[0].decode(), expires_at.isoformat()


class Hashes(Data):
    def commands(self, pipeline, number, source):
        pipeline.hset("account:%d" % number, mapping={
            "email": "user.%07d@example.com" % number, "name": "User %d" % source.randrange(10**6), "age": source.randrange(18, 90),
            "balance": "%d.%02d" % (source.randrange(10**5), source.randrange(100)), "active": source.choice(["true", "false"]),
            "created": "2026-%02d-%02d 12:00:00+00" % (source.randrange(1, 13), source.randrange(1, 29))})

    def read(self, pipeline, key):
        pipeline.hgetall(key)

    def rows(self, key, replies):
        fields = {name.decode(): value.decode() for name, value in replies[0].items()}
        yield (key[len("account:"):], *(fields[name] for name in ("email", "name", "age", "balance", "active", "created")))


class SortedSets(Data):
    def commands(self, pipeline, number, source):
        pipeline.zadd("board:%d" % number, {"player.%07d" % source.randrange(10**7): source.randrange(10**6) for _ in range(COLLECTION)})

    def read(self, pipeline, key):
        pipeline.zrange(key, 0, -1, withscores=True)

    def rows(self, key, replies):
        for member, score in replies[0]:
            yield key[len("board:"):], member.decode(), score


class Lists(Data):
    def commands(self, pipeline, number, source):
        pipeline.rpush("feed:%d" % number, *("post.%07d" % source.randrange(10**7) for _ in range(COLLECTION)))

    def read(self, pipeline, key):
        pipeline.lrange(key, 0, -1)

    def rows(self, key, replies):
        for position, value in enumerate(replies[0], 1):
            yield key[len("feed:"):], position, value.decode()


class Sets(Data):
    def commands(self, pipeline, number, source):
        pipeline.sadd("tags:%d" % number, *("tag.%07d" % source.randrange(10**7) for _ in range(COLLECTION)))

    def read(self, pipeline, key):
        pipeline.smembers(key)

    def rows(self, key, replies):
        for member in replies[0]:
            yield key[len("tags:"):], member.decode()


def all_data(keys):
    strings = {"count": keys, "key_columns": "email", "pattern": "user:{email}"}
    return {data.name: data for data in (
        Strings("strings", 0, columns="email text PRIMARY KEY, info jsonb, expires_at timestamptz",
                query="SELECT email, json AS info, expires_at FROM redis_batch", **strings),
        Strings("strings as text", 0, columns="email text PRIMARY KEY, info text, expires_at timestamptz",
                query="SELECT email, value AS info, expires_at FROM redis_batch", **strings),
        Strings("few strings", 5, columns="email text NOT NULL, info jsonb, expires_at timestamptz",
                query="SELECT email, json AS info, expires_at FROM redis_batch", **dict(strings, count=keys // 10)),
        # Nothing that a mapping can see ties a key to its row, so the ledger is full.
        Strings("strings by value", 0, columns="email text PRIMARY KEY, info jsonb, expires_at timestamptz",
                query="SELECT json->>'email' AS email, json AS info, expires_at FROM redis_batch", **strings),
        Hashes("hashes", 1, keys * 2 // 5,
               "id bigint PRIMARY KEY, email text, name text, age int, balance numeric, active boolean, created timestamptz", "id",
               "account:{id:int}", "SELECT id, json->>'email' AS email, json->>'name' AS name, (json->>'age')::int AS age, "
               "(json->>'balance')::numeric AS balance, (json->>'active')::boolean AS active, "
               "(json->>'created')::timestamptz AS created FROM redis_batch", "types => '{hash}'"),
        SortedSets("sorted sets", 2, keys // 10, "board bigint, member text, score float8, PRIMARY KEY (board, member)",
                   "board,member", "board:{board:int}", "SELECT board, member, score FROM redis_batch",
                   "types => '{zset}', expand => 'elements'"),
        Lists("lists", 3, keys // 10, "feed bigint, position bigint, value text, PRIMARY KEY (feed, position)",
              "feed,position", "feed:{feed:int}", "SELECT feed, position, value FROM redis_batch",
              "types => '{list}', expand => 'elements'"),
        Sets("sets", 4, keys // 10, "tags bigint, member text, PRIMARY KEY (tags, member)", "tags,member",
             "tags:{tags:int}", "SELECT tags, member FROM redis_batch", "types => '{set}', expand => 'elements'"))}


# The statements that create a table {table} with {columns}.
LAYOUTS = {
    "plain": "CREATE TABLE {table} ({columns})",
    "two more indexes": "CREATE TABLE {table} ({columns}); CREATE INDEX ON {table} (expires_at); CREATE INDEX ON {table} ((info->>'plan'))",
    "hash-partitioned": "CREATE TABLE {table} ({columns}) PARTITION BY HASH (email)" + "".join(
        "; CREATE TABLE {table}_%d PARTITION OF {table} FOR VALUES WITH (MODULUS 4, REMAINDER %d)" % (i, i) for i in range(4)),
    "two servers": "CREATE TABLE {table} ({columns}) PARTITION BY HASH (email)" + "".join(
        "; CREATE FOREIGN TABLE {table}_%d PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER %d) SERVER %s" % (i, i, server)
        for i, server in enumerate(SERVERS))}


class Case:
    """A migration into an empty table of its own, and again when nothing has changed."""

    def __init__(self, name, data, source="scan", exclusive=False, layout="plain", workers=1, goal=None, journal=True):
        self.name, self.data, self.source, self.exclusive, self.layout, self.workers = name, data, source, exclusive, layout, workers
        self.journal = journal
        self.goal = goal  # of the time beside COPY's; none: only reported
        self.times, self.again, self.busy, self.memory_kb, self.again_wal = [], [], [], 0, 0


def all_cases():
    return [
        Case("strings, exclusive, scan", "strings", exclusive=True, goal=1.2),
        Case("strings, scan", "strings", goal=1.2),
        Case("strings, exclusive, file", "strings", "rdb", exclusive=True, goal=1.0),
        Case("strings, file", "strings", "rdb", goal=1.0),
        Case("strings, two processes, scan", "strings", workers=2, goal=1.0),
        Case("strings, two processes, file", "strings", "rdb", workers=2, goal=0.65),
        Case("strings as text, scan", "strings as text", goal=1.2),
        Case("strings as text, file", "strings as text", "rdb", goal=1.0),
        Case("hashes, scan", "hashes", goal=1.2),
        Case("sorted sets, scan", "sorted sets", goal=1.2),
        Case("lists, scan", "lists", goal=1.2),
        Case("sets, scan", "sets", goal=1.2),
        Case("strings, full ledger, scan", "strings by value"),
        Case("strings, no journal, scan", "strings", journal=False),
        Case("strings, full ledger, no journal, scan", "strings by value", journal=False),
        Case("strings, two more indexes, scan", "strings", layout="two more indexes"),
        Case("strings, hash-partitioned, scan", "strings", layout="hash-partitioned"),
        Case("strings, two servers, scan", "few strings", layout="two servers"),
    ]


# Pairs of cases of which the first is not to take much longer than the second: first runs, unchanged runs.
PAIRS = [("strings, scan", "strings, exclusive, scan"), ("strings, file", "strings, exclusive, file")]
PAIR_GOALS = (1.25, 1.1)
# The first runs of these, with a journal and without.
JOURNAL_PAIRS = [("strings, scan", "strings, no journal, scan"),
                 ("strings, full ledger, scan", "strings, full ledger, no journal, scan")]
JOURNAL_GOAL = 1.05
AGAIN_GOAL = 0.6      # of the time of the first run
MEMORY_GOAL_MB = 64
GET_GOAL = 2.0        # of the p99 beside a run
VERIFY_GOAL = 1.5     # of the time of reading the keys
SAMPLE_GOAL = 60000   # keys/s


def show(name, rows, seconds, beside=None, goal=None, *more):
    """A line of the table. More: what was found, and its goal, or only what was found."""
    def number(value, form):
        return "" if value is None else form % value

    def missed(value, most):
        return "!" if value is not None and most is not None and value > most else " "

    ratio = None if beside is None else seconds / beside
    line = "%-40s %10s %8s %8s %8s %6s%s" % (name, number(rows, "%d"), number(seconds, "%.4g"), number(beside, "%.4g"),
                                             number(ratio, "%.2f"), number(goal, "%.2f"), missed(ratio, goal))
    for width, form, value, most in more:
        line += " " + number(value, form).rjust(width) + missed(value, most)
    print(line.rstrip(), flush=True)


class Gets(threading.Thread):
    """Another client of the Redis: a GET every two milliseconds."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.client, self.done, self.seconds = redis.Redis(port=port), threading.Event(), []

    def run(self):
        while not self.done.wait(0.002):
            start = time.monotonic()
            self.client.get("user:user.0000001@example.com")
            self.seconds.append(time.monotonic() - start)

    def p99(self):
        self.done.set()
        self.join()
        return statistics.quantiles(self.seconds, n=100)[98]


class Bench:
    def __init__(self, options):
        self.options = options
        self.sql = self.connect("postgres")
        self.data = all_data(options.keys)
        self.cases = [case for case in all_cases() if options.only in case.name]
        self.copies = {}  # (data, layout) -> the table that COPY fills, its times, and those of its processor
        self.dump = None

    @staticmethod
    def connect(database):
        sql = psycopg2.connect(dbname=database)
        sql.autocommit = True
        return sql

    def ask(self, statement, *arguments):
        with self.sql.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchone() if cursor.description else None

    def file(self, name):
        return os.path.join(self.options.directory, name.replace(" ", "_"))

    def create(self, table, case):
        if case.layout == "two servers":
            for number, server in enumerate(SERVERS):
                self.connect(server).cursor().execute("CREATE TABLE %s_%d (%s, PRIMARY KEY (email))" % (
                    table, number, self.data[case.data].columns))
        self.ask(LAYOUTS[case.layout].format(table=table, columns=self.data[case.data].columns))

    def prepare(self):
        self.ask("CREATE EXTENSION pg_redis_migrate")
        self.ask("CREATE SERVER bench FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '%d')" % self.options.redis)
        self.ask("CREATE EXTENSION postgres_fdw")
        for server in SERVERS:
            self.ask("CREATE DATABASE " + server)
            self.ask("CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname '%s', batch_size '1000', "
                     "fetch_size '10000')" % (server, os.environ["PGHOST"], os.environ["PGPORT"], server))
            self.ask("CREATE USER MAPPING FOR CURRENT_USER SERVER " + server)
        loaded = set()
        for name in dict.fromkeys(case.data for case in self.cases):
            data = self.data[name]
            if data.database not in loaded:
                print("loading %d %s" % (data.count, name), file=sys.stderr)
                data.load(self.options.redis)
                loaded.add(data.database)
            if data.database == 0 and self.dump is None:
                self.dump = self.save()
            data.write_rows(self.options.redis, self.file(name))
        for number, case in enumerate(self.cases):
            case.table = "target_%d" % number
            self.create(case.table, case)
            if (case.data, case.layout) not in self.copies:
                self.copies[case.data, case.layout] = ("copied_%d" % number, [], [])
                self.create("copied_%d" % number, case)

    def save(self):
        """A dump file that the server may read."""
        client = redis.Redis(port=self.options.redis)
        client.save()
        path = self.file("dump.rdb")
        shutil.copyfile(os.path.join(client.config_get("dir")["dir"], client.config_get("dbfilename")["dbfilename"]), path)
        return path

    def define(self, case):
        """The migration of a case, which knows nothing of earlier rounds."""
        data = self.data[case.data]
        if case.source == "rdb":
            self.ask("SELECT redis_migrate.create_migration('bench', source => 'rdb', file => %s, journal => %s)", self.dump, case.journal)
        else:
            self.ask("SELECT redis_migrate.create_migration('bench', 'bench', databases => %s, journal => %s)", [data.database], case.journal)
        options = ["databases => '{%d}'" % data.database, *([data.options] if data.options else []),
                   *(["exclusive => true"] if case.exclusive else [])]
        self.ask("SELECT redis_migrate.add_mapping('bench', 'all', %s, %s, %s, key_columns => %s, " + ", ".join(options) + ")",
                 data.pattern, case.table, data.query, data.key_columns.split(","))

    def timed(self, statement):
        """The seconds that a statement takes, and those of the session's processor."""
        self.ask("CHECKPOINT")
        busy, start = self.processor(), time.monotonic()
        self.ask(statement)
        return time.monotonic() - start, self.processor() - busy

    def processor(self):
        with open("/proc/%d/stat" % self.sql.info.backend_pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, case):
        self.ask("TRUNCATE %s" % case.table)
        self.define(case)
        for again in (False, True):
            wal = self.ask("SELECT pg_current_wal_lsn()")[0]
            parts = "redis_migrate migration part" if case.workers > 1 else None
            with Memory(self.sql.info.backend_pid, parts) as memory:
                seconds, busy = self.timed("CALL redis_migrate.run('bench', workers => %d)" % case.workers)
            case.memory_kb = max(case.memory_kb, memory.highest)
            (case.again if again else case.times).append(seconds)
            if not again:
                case.busy.append(busy)
            case.again_wal = self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", wal)[0]
        rows, = self.ask("SELECT count(*) FROM %s" % case.table)
        self.ask("SELECT redis_migrate.drop_migration('bench')")
        table, _, _ = self.copies[case.data, case.layout]
        copied, = self.ask("SELECT count(*) FROM %s" % table)
        if rows != copied:
            sys.exit("%s: %d rows, COPY has %d" % (case.name, rows, copied))
        case.rows = rows
        self.ask("TRUNCATE %s" % case.table)

    def copy(self, data, layout):
        table, times, busy = self.copies[data, layout]
        self.ask("TRUNCATE %s" % table)
        seconds, processor = self.timed("COPY %s FROM '%s'" % (table, self.file(data)))
        times.append(seconds)
        busy.append(processor)

    def script(self):
        data = self.data["strings"]
        self.ask("CREATE TABLE scripted (%s)" % data.columns)
        start = time.monotonic()
        subprocess.run(["/usr/bin/python3", os.path.join(os.path.dirname(__file__), "careful_script.py"), str(self.options.redis), "scripted"],
                       check=True)
        return time.monotonic() - start

    def sample(self):
        """The keys of the application of examples/threadr, in a Redis and a database of its own, and the seconds of a run."""
        examples = os.path.join(os.path.dirname(__file__), "../../examples/threadr")
        resp = subprocess.run(["/usr/bin/python3", os.path.join(examples, "generate.py"), "--users", "5000"], check=True,
                              capture_output=True).stdout
        subprocess.run(["redis-cli", "-p", str(self.options.sample), "--pipe"], input=resp, check=True, capture_output=True)
        time.sleep(1.1)  # one key has a TTL of a second
        self.ask("CREATE DATABASE threadr")
        sql = ["CREATE EXTENSION pg_redis_migrate",
               "CREATE SERVER threadr_redis FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '127.0.0.1', port '%d')" % self.options.sample,
               "CREATE USER MAPPING FOR CURRENT_USER SERVER threadr_redis"]
        files = [os.path.join(examples, name) for name in ("schema.sql", "mappings.sql")]
        subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "threadr", *(f"-c{statement}" for statement in sql),
                        *(f"-f{file}" for file in files)], check=True, stdout=subprocess.DEVNULL)
        session = self.connect("threadr")
        keys = redis.Redis(port=self.options.sample).dbsize()
        start = time.monotonic()
        session.cursor().execute("CALL redis_migrate.run('threadr', workers => 1)")
        return keys, time.monotonic() - start

    def verify(self):
        """The rows of a migration, and the seconds of verifications, with one process and with two, and of runs that read the
        same keys for nothing."""
        case = Case("", "strings")
        case.table = "verified"
        if (case.data, case.layout) not in self.copies:
            self.data[case.data].load(self.options.redis)
        self.create(case.table, case)
        self.define(case)
        self.ask("CALL redis_migrate.run('bench', workers => 1)")
        rows, = self.ask("SELECT count(*) FROM verified")
        verified = {1: [], 2: []}
        for _, workers in itertools.product(range(self.options.rounds), verified):
            verified[workers].append(self.timed("CALL redis_migrate.verify('bench', workers => %d)" % workers)[0])
        if not self.ask("SELECT bool_and(verified) FROM redis_migrate.verifications WHERE migration = 'bench'")[0]:
            sys.exit("not verified")
        self.ask("SELECT redis_migrate.drop_migration('bench')")
        self.ask("TRUNCATE verified")
        self.define(case)
        self.ask("SELECT redis_migrate.alter_mapping('bench', 'all', query => %s, no_row => 'skip')",
                 self.data[case.data].query + " WHERE false")
        read = [self.timed("CALL redis_migrate.run('bench', workers => 1)")[0] for _ in range(self.options.rounds)]
        self.ask("SELECT redis_migrate.drop_migration('bench')")
        return rows, *map(statistics.median, verified.values()), statistics.median(read)

    def stages(self):
        """Microseconds of a processor that each stage takes for a string, and the seconds of one COPY and of two at once."""
        case = Case("", "strings")
        case.table = "staged"
        data = self.data["strings"]
        if (case.data, case.layout) not in self.copies:
            data.load(self.options.redis)
            data.write_rows(self.options.redis, self.file("strings"))
            self.dump = self.save()
        self.create("staged", case)
        client = redis.Redis(port=self.options.redis)

        def server():
            cpu = client.info("cpu")
            return cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]

        def stage(name, *statements):
            sessions, servers = [], []
            for _ in range(self.options.rounds):
                self.ask("TRUNCATE staged")
                self.define(case)
                for statement in statements:
                    self.ask(statement)
                before = server()
                sessions.append(self.timed("CALL redis_migrate.run('bench', workers => 1)")[1])
                servers.append(server() - before)
                self.ask("SELECT redis_migrate.drop_migration('bench')")
            show(name + ": session, us", data.count, 1e6 * statistics.median(sessions) / data.count)
            if case.source == "scan":
                show(name + ": Redis, us", data.count, 1e6 * statistics.median(servers) / data.count)

        no_row = "SELECT redis_migrate.alter_mapping('bench', 'all', query => $$%s WHERE false$$, no_row => 'skip')" % data.query
        for case.source in "scan", "rdb":
            stage(case.source + ", reading alone", no_row)
            stage(case.source + ", whole")
        stage("rdb, keys that are passed over", "SELECT redis_migrate.alter_mapping('bench', 'all', databases => '{9}')",
              "SELECT redis_migrate.alter_migration('bench', databases => '{9}')")

        half = data.count // 2
        with open(self.file("strings")) as rows:
            for number in range(2):
                with open(self.file("half %d" % number), "w") as part:
                    part.writelines(itertools.islice(rows, half if number == 0 else None))
        others = [self.connect("postgres") for _ in range(2)]
        one, two, busy = [], [], []
        for _ in range(self.options.rounds):
            self.ask("TRUNCATE staged")
            seconds, processor = self.timed("COPY staged FROM '%s'" % self.file("strings"))
            one.append(seconds)
            busy.append(processor)
            self.ask("TRUNCATE staged")
            threads = [threading.Thread(target=other.cursor().execute, args=("COPY staged FROM '%s'" % self.file("half %d" % number),))
                       for number, other in enumerate(others)]
            start = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            two.append(time.monotonic() - start)
        show("COPY: session, us", data.count, 1e6 * statistics.median(busy) / data.count)
        show("two COPYs of half the rows, beside one", data.count, statistics.median(two), statistics.median(one))

    def gets(self, beside):
        """p99 of GET, in seconds, while something else is done."""
        gets = Gets(self.options.redis)
        gets.start()
        beside()
        return gets.p99()

    def measure(self):
        begun = time.monotonic()
        self.prepare()
        other = self.connect("postgres")
        with Memory(other.info.backend_pid) as idle:
            time.sleep(0.3)
        for number in range(1, self.options.rounds + 1):
            print("round %d of %d" % (number, self.options.rounds), file=sys.stderr)
            start = time.monotonic()
            for data, layout in self.copies:
                self.copy(data, layout)
            for case in self.cases:
                self.run(case)
            end = time.monotonic()
            if number < self.options.rounds and 2 * end - start - begun > 60 * self.options.minutes:
                print("no time for more rounds", file=sys.stderr)
                break
        print("medians of %d rounds" % number)
        print("%-40s %10s %8s %8s %8s %6s  %6s  %8s  %6s  %8s  %6s" % (
            "", "rows", "seconds", "beside", "ratio", "goal", "CPU", "again", "/run", "WAL kB", "MB"))
        for case in self.cases:
            self.show_case(case, idle.highest)
        by_name = {case.name: case for case in self.cases}
        for pair in PAIRS:
            if all(name in by_name for name in pair):
                packed, exclusive = (by_name[name] for name in pair)
                show(packed.name + " / exclusive", packed.rows, statistics.median(packed.times),
                     statistics.median(exclusive.times), PAIR_GOALS[0])
                show("the same, nothing changed", packed.rows, statistics.median(packed.again),
                     statistics.median(exclusive.again), PAIR_GOALS[1])
        for journalled, plain in JOURNAL_PAIRS:
            if journalled in by_name and plain in by_name:
                show(journalled + " / no journal", by_name[journalled].rows, statistics.median(by_name[journalled].times),
                     statistics.median(by_name[plain].times), JOURNAL_GOAL)
        if self.options.only in "script":
            show("careful Python script, strings", self.data["strings"].count, self.script(),
                 statistics.median(self.copies["strings", "plain"][1]))
        if self.options.only in "sample":
            keys, seconds = self.sample()
            show("sample application, beside %d keys/s" % SAMPLE_GOAL, keys, seconds, keys / SAMPLE_GOAL, 1.0)
        if self.options.only in "verify":
            rows, verified, by_two, read = self.verify()
            show("verify, strings, beside reading them", rows, verified, read, VERIFY_GOAL)
            show("the same by two processes", rows, by_two, read)
        if self.options.only in "stages":
            self.stages()
        if self.options.only in "gets":
            alone = self.gets(lambda: time.sleep(3))
            case = Case("", "strings", exclusive=True)
            case.table = "got"
            if (case.data, case.layout) not in self.copies:
                self.data[case.data].load(self.options.redis)
                self.data[case.data].write_rows(self.options.redis, self.file(case.data))
            self.create("got", case)
            self.define(case)
            beside = self.gets(lambda: self.ask("CALL redis_migrate.run('bench')"))
            beside_verify = self.gets(lambda: self.ask("CALL redis_migrate.verify('bench')"))
            self.ask("TRUNCATE got")
            beside_copy = self.gets(lambda: self.ask("COPY got FROM '%s'" % self.file("strings")))
            show("p99 of a GET during a run, beside alone", None, beside, alone, GET_GOAL)
            show("the same during a verification", None, beside_verify, alone, GET_GOAL)
            show("the same during a COPY, beside alone", None, beside_copy, alone)
        if self.options.only in "others":
            for other in ("expiry", "--rows", "500000"), ("ratelimit", "--seconds", "1"):
                subprocess.run([os.path.join(os.path.dirname(__file__), other[0]), *other[1:], "--row", "--rounds",
                                str(min(self.options.rounds, 3))], check=True)
        print("beside: COPY of the same rows from a file on the server, unless another is named. !: the goal is missed. CPU: of the "
              "session, beside that of COPY's. again: a second run, in which nothing has changed; /run: beside the first, goal %.2f; "
              "WAL: of the second run. MB: the most memory of a process above an idle session, goal %d" % (AGAIN_GOAL, MEMORY_GOAL_MB))

    def show_case(self, case, idle_kb):
        run, again = statistics.median(case.times), statistics.median(case.again)
        _, times, busy = self.copies[case.data, case.layout]
        # Only one of several processes is watched; the system counts hundredths of seconds.
        processor = statistics.median(case.busy) / statistics.median(busy) if case.workers == 1 and statistics.median(busy) > 0 else None
        show(case.name, case.rows, run, statistics.median(times), case.goal,
             (6, "%.2f", processor, None),
             (8, "%.4g", again, None), (6, "%.2f", again / run, AGAIN_GOAL if case.goal else None),
             (8, "%d", case.again_wal / 1024, None), (6, "%.0f", (case.memory_kb - idle_kb) / 1024, MEMORY_GOAL_MB))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--directory")
    parser.add_argument("--keys", type=int, default=500000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=11)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        Bench(options).measure()


if __name__ == "__main__":
    main()
