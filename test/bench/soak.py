#!/usr/bin/python3
"""Shows whether the memory of live sync stays flat: follows a load for long through what happens meanwhile, prints each
minute what each process takes, and compares every key in the end.

Usage: soak.py --redis PORT [--seconds N] [--rate N]
  --redis      an empty Redis server, 7.0 or later
  --seconds N  how long; 3,600 by default
  --rate N     commands a second; 5,000 by default
  --check      only checks the options

Three of eleven commands set a key of a new name, two delete such keys after a while, the others change 20 keys for each command
of a second: HSET, ZADD, INCR, EXPIRE, LPUSH with LTRIM, and a script that changes three keys in one transaction. Each second a
string of 1 MB comes, and a field of a hash that has 5,000. Each minute the connection of the link is cut, each ten minutes comes
a FLUSHDB. Two processes apply. Memory is RssAnon: what a process has of its own, without shared buffers. PostgreSQL is that of
PGHOST, PGPORT and PGUSER; its processes must run on this machine, and it must let a run remove all rows. Exits with 1 if in the
end the tables differ from Redis, or the lag never ended.
"""
import argparse
import random
import sys
import time

from live import InProcess, Live, Sender, command

LARGE = 20
TRANSACTION = "redis.call('INCR', KEYS[1]) redis.call('HSET', KEYS[2], 'a', ARGV[1]) redis.call('ZADD', KEYS[3], ARGV[1], 'm')"


def second_of(number, rate, names):
    """The commands of one second, with replies of one line each. names: how many new names there have been."""
    below = random.Random(number).randrange
    keys, kept = 20 * rate, 10 * rate  # of new names there are so many at a time
    some = []
    while len(some) < rate:
        kind = below(11)
        if kind < 3:
            some.append(command("SET", "s:n%d" % names, "v" * below(100), *(("EX", 5 + below(600)) if below(4) == 0 else ())))
            names += 1
        elif kind < 5:
            some.append(command("DEL", *("s:n%d" % (names - kept - below(3)) for _ in range(2))))
        elif kind == 5:
            some.append(command("HSET", "h:%d" % below(keys), "a", below(100), "b", below(100)))
        elif kind == 6:
            some.append(command("ZADD", "z:%d" % below(keys), below(100), "m%d" % below(5)))
        elif kind == 7:
            some.append(command("INCR", "s:c%d" % below(keys)))
        elif kind == 8:
            some.append(command("EXPIRE", "h:%d" % below(keys), 100 + below(10000)))
        elif kind == 9:
            some.append(command("EVAL", TRANSACTION, 3, "s:c%d" % below(keys), "h:%d" % below(keys), "z:%d" % below(keys), below(100)))
        else:
            key = "l:%d" % below(keys)
            some += [command("LPUSH", key, below(100)), command("LTRIM", key, 0, 9)]
    some.append(command("SET", "s:large%d" % below(LARGE), "x" * (1 << 20)))
    some.append(command("HSET", "h:large", "f%d" % below(5000), below(10**6)))
    if number % 60 == 59:
        some.append(command("CLIENT", "KILL", "TYPE", "replica"))
    if number % 600 == 599:
        some.append(command("FLUSHDB"))
    return some, names


def load(ends, port, rate):
    """Returns the commands a second that it came to."""
    sender = Sender(port)
    number = sent = names = 0
    start = time.monotonic()
    while not ends.is_set():
        some, names = second_of(number, rate, names)
        sent += len(some)
        sender.send_at(some, rate)
        number += 1
        time.sleep(max(0, start + number - time.monotonic()))
    return sent / (time.monotonic() - start)


def memory(live):
    """kB of each worker, by its kind."""
    live.execute("SELECT kind, pid FROM redis_migrate.workers WHERE pid IS NOT NULL ORDER BY kind, pid")
    sizes = {}
    for kind, pid in live.cursor.fetchall():
        try:
            with open("/proc/%d/status" % pid) as file:
                sizes["%s %d" % (kind, pid)] = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        except FileNotFoundError:
            pass  # it has ended since
    return sizes


def rows_of(live):
    """By key: what the tables have, and when it expires, in Unix milliseconds, or -1."""
    live.execute("""
        SELECT 's:' || id, value, coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM strings
        UNION ALL SELECT 'h:' || id, (SELECT string_agg(key || '=' || value, ' ' ORDER BY key COLLATE "C") FROM jsonb_each_text(fields)),
            coalesce((extract(epoch FROM expires_at) * 1000)::bigint, -1) FROM hashes
        UNION ALL SELECT 'l:' || id, string_agg(value, ' ' ORDER BY position), -1 FROM items GROUP BY id
        UNION ALL SELECT 'z:' || id, string_agg(member || '=' || score::bigint, ' ' ORDER BY member COLLATE "C"), -1 FROM scores GROUP BY id""")
    return {key: (value, expiry) for key, value, expiry in live.cursor.fetchall()}


def pairs(some):
    return " ".join("%s=%s" % (name.decode(), value.decode()) for name, value in sorted(some))


def keys_of(master):
    """By key: likewise what Redis has. None: it has just expired."""
    readers = {
        b"s": ("GET", (), lambda value: value.decode()),
        b"h": ("HGETALL", (), lambda fields: pairs(fields.items())),
        b"l": ("LRANGE", (0, -1), lambda values: b" ".join(values).decode()),
        b"z": ("ZRANGE", (0, -1, "WITHSCORES"), lambda members: pairs((member, b"%d" % score) for member, score in members)),
    }
    names = list(set(master.scan_iter(count=1000)))
    keys = {}
    for at in range(0, len(names), 1000):
        pipeline = master.pipeline(transaction=False)
        for name in names[at:at + 1000]:
            read, arguments, _ = readers[name[:1]]
            pipeline.execute_command(read, name, *arguments, **({"withscores": True} if read == "ZRANGE" else {}))
            pipeline.execute_command("PEXPIRETIME", name)
        replies = pipeline.execute()
        for i, name in enumerate(names[at:at + 1000]):
            value, expiry = replies[2 * i:2 * i + 2]
            if expiry != -2:
                keys[name.decode()] = (readers[name[:1]][2](value), -1 if name[:1] in b"lz" else expiry)
    return keys


def differences(live):
    """Keys in which the tables differ from Redis, but those that have expired meanwhile."""
    rows = rows_of(live)
    keys = keys_of(live.master)
    seconds, microseconds = live.master.time()
    now = seconds * 1000 + microseconds // 1000
    wrong = [key for key, value in keys.items() if rows.get(key) != value]
    return len(keys), wrong + [key for key, (_, expiry) in rows.items() if key not in keys and not 0 <= expiry <= now]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return
    live = Live(options)
    live.appliers = 2
    live.follow()
    writer = InProcess(load, options.redis, options.rate)
    start = time.monotonic()
    for number in range(options.seconds // 60 + 1):
        time.sleep(max(0, start + 60 * number - time.monotonic()))
        state, lag, spool, ahead = live.answer("SELECT state, lag_seconds, spool_bytes, keys_ahead FROM redis_migrate.live_sync")
        sizes = ", ".join("%s %d kB" % (who, size) for who, size in memory(live).items())
        print("%6d s: %s; %s, %.1f s behind, spool %d bytes, %d keys ahead" % (time.monotonic() - start, sizes, state, lag or 0, spool or 0, ahead or 0), flush=True)
    print("%.0f commands/s" % writer.finish())
    live.wait()
    count, wrong = differences(live)
    print("%d keys, %d differ; runs: %d" % (count, len(wrong), live.answer("SELECT count(*) FROM redis_migrate.runs")[0]))
    if wrong:
        sys.exit("\n".join(wrong[:20]))
    live.leave()


if __name__ == "__main__":
    main()
