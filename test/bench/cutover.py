#!/usr/bin/python3
"""Times how long a cutover holds writes back while an application writes. No figure makes it fail.

Usage: cutover.py --redis PORT [--rate N] [--rounds N]
  --redis     an empty Redis server
  --rate N    mixed commands a second, those of live.py; 20,000 by default
  --rounds N  cutovers; 10 by default
  --check     only checks the options

"paused" is what redis_migrate.cutovers says; "longest write" what a client saw that sets a key every millisecond.
PostgreSQL is that of PGHOST, PGPORT and PGUSER.
"""
import argparse
import statistics
import time

import redis

from live import InProcess, KEYS, Live, Sender, commands

KINDS = ("SET", "HSET", "DEL", "EXPIRE", "LPUSH", "ZADD", "INCR")


def write_all_the_while(ends, port, rate):
    sender = Sender(port)
    some = commands(rate * 5, KINDS, 1)
    rates = []
    while not ends.is_set():
        rates.append(sender.send_at(some[:rate], rate))
    return statistics.median(rates)


def longest_write(ends, port):
    """Milliseconds."""
    client = redis.Redis(port=port)
    longest = 0
    while not ends.is_set():
        start = time.perf_counter()
        client.set("p:probe", 1)
        longest = max(longest, (time.perf_counter() - start) * 1000)
        time.sleep(0.001)
    return longest


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--redis", type=int)
    parser.add_argument("--rate", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        return
    Sender(options.redis).send_all(commands(4 * KEYS, KINDS, 0))
    live = Live(options)
    live.follow()
    load = InProcess(write_all_the_while, options.redis, options.rate)
    time.sleep(5)
    paused, longest = [], []
    for number in range(1, options.rounds + 1):
        probe = InProcess(longest_write, options.redis)
        time.sleep(1)
        live.execute("CALL redis_migrate.cutover('live', 'confirmed', pattern => 's:{id}', force => true, max_pause => '10 s')")
        time.sleep(0.5)
        longest.append(probe.finish())
        paused.append(float(live.answer("SELECT paused_ms FROM redis_migrate.cutovers ORDER BY cutover_id DESC LIMIT 1")[0]))
        print("  %d: paused %6.0f ms, longest write %6.0f ms" % (number, paused[-1], longest[-1]), flush=True)
        live.execute("SELECT redis_migrate.set_family_state('live', 's:{id}', 'redis')")
        live.wait()
    print("cutover at %.0f writes/s: paused %.0f ms (median), %.0f ms (most); longest write %.0f ms (median), %.0f ms (most)"
          % (load.finish(), statistics.median(paused), max(paused), statistics.median(longest), max(longest)))


main()
