#!/usr/bin/python3
"""Shows whether the memory of live sync stays flat: follows a load for long, and prints what each process takes meanwhile.

Usage: soak.py --redis PORT [--seconds N] [--rate N]
  --redis      an empty Redis server
  --seconds N  how long; 3,600 by default
  --rate N     commands a second; 5,000 by default
  --check      only checks the options

Three of ten commands set a key of a new name, two delete such keys after a while, the others change 100,000 keys: HSET, ZADD,
INCR, EXPIRE, and LPUSH with LTRIM. Each second a string of 1 MB comes, and a field of a hash that has 5,000. Memory is RssAnon:
what a process has of its own, without shared buffers. PostgreSQL is that of PGHOST, PGPORT and PGUSER; its processes must run
on this machine. Exits with 1 if at the end a list or sorted set has no row, or the lag never ended.
"""
import argparse
import random
import sys
import time

from live import InProcess, KEYS, Live, Sender, command

KEPT = 50000  # keys of new names that are there at a time
LARGE = 20


def second_of(number, rate, names):
    """The commands of one second. names: how many new names there have been."""
    below = random.Random(number).randrange
    some = []
    while len(some) < rate:
        kind = below(10)
        if kind < 3:
            some.append(command("SET", "s:n%d" % names, "v" * below(100), *(("EX", 5 + below(600)) if below(4) == 0 else ())))
            names += 1
        elif kind < 5:
            some.append(command("DEL", *("s:n%d" % (names - KEPT - below(3)) for _ in range(2))))
        elif kind == 5:
            some.append(command("HSET", "h:%d" % below(KEYS), "a", below(100), "b", below(100)))
        elif kind == 6:
            some.append(command("ZADD", "z:%d" % below(KEYS), below(100), "m%d" % below(5)))
        elif kind == 7:
            some.append(command("INCR", "s:c%d" % below(KEYS)))
        elif kind == 8:
            some.append(command("EXPIRE", "h:%d" % below(KEYS), 100 + below(10000)))
        else:
            key = "l:%d" % below(KEYS)
            some += [command("LPUSH", key, below(100)), command("LTRIM", key, 0, 9)]
    some.append(command("SET", "s:large%d" % below(LARGE), "x" * (1 << 20)))
    some.append(command("HSET", "h:large", "f%d" % below(5000), below(10**6)))
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
        with open("/proc/%d/status" % pid) as file:
            sizes["%s %d" % (kind, pid)] = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
    return sizes


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
    live.follow()
    writer = InProcess(load, options.redis, options.rate)
    start = time.monotonic()
    for number in range(13):  # caches fill in the first twelfth
        time.sleep(max(0, start + options.seconds * number / 12 - time.monotonic()))
        state, lag, spool, ahead = live.answer("SELECT state, lag_seconds, spool_bytes, keys_ahead FROM redis_migrate.live_sync")
        sizes = ", ".join("%s %d kB" % (who, size) for who, size in memory(live).items())
        print("%6d s: %s; %s, %.1f s behind, spool %d bytes, %d keys ahead" % (time.monotonic() - start, sizes, state, lag or 0, spool or 0, ahead or 0), flush=True)
    print("%.0f commands/s" % writer.finish())
    live.wait()
    # Strings and hashes expire while they are counted.
    rows = live.answer("SELECT (SELECT count(DISTINCT id) FROM items) + (SELECT count(DISTINCT id) FROM scores)")[0]
    keys = sum(1 for _ in live.master.scan_iter("[lz]:*", count=1000))
    if rows != keys:
        sys.exit("the tables have %d lists and sorted sets, Redis has %d" % (rows, keys))
    live.leave()


if __name__ == "__main__":
    main()
