#!/usr/bin/python3
"""Extends a session while a sweep runs, again and again, and counts sessions that were extended and yet deleted.

Usage: refresh_race.py CONNINFO TABLE ROUNDS SEED SWEEP, where SWEEP is the statement that removes what has expired from
TABLE (id int primary key, expires_at timestamptz). Each round the table holds 40 sessions that have expired; one of them
is being extended by a transaction of its own, which begins and commits a little before, while or after the sweep works.
Prints "rounds touched overlapped lost": in how many rounds the session was still there to extend, in how many of these
the extending transaction was open while the sweep worked, and how many sessions were lost.
"""

import random
import sys
import threading
import time

import psycopg2


def main():
    conninfo, table, rounds, seed, sweep = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    chance = random.Random(seed)
    admin, user, sweeper = (psycopg2.connect(conninfo) for _ in range(3))
    admin.autocommit = sweeper.autocommit = True
    admin_cursor, user_cursor, sweep_cursor = admin.cursor(), user.cursor(), sweeper.cursor()
    sweep_cursor.execute("SET client_min_messages = warning")
    times = {}

    def run_sweep(delay):
        time.sleep(delay)
        times["sweep_begin"] = time.monotonic()
        sweep_cursor.execute(sweep)
        times["sweep_end"] = time.monotonic()

    touched = overlapped = lost = 0
    for _ in range(rounds):
        admin_cursor.execute(f"DELETE FROM {table}; INSERT INTO {table} SELECT g, clock_timestamp() - interval '1 second' * g "
                             "FROM generate_series(1, 40) AS g")
        session = chance.randint(1, 40)
        thread = threading.Thread(target=run_sweep, args=(chance.uniform(0, 0.003),))
        thread.start()
        time.sleep(chance.uniform(0, 0.003))
        begin = time.monotonic()
        user_cursor.execute(f"UPDATE {table} SET expires_at = clock_timestamp() + interval '1 hour' WHERE id = %s", (session,))
        was_there = user_cursor.rowcount == 1
        time.sleep(chance.uniform(0, 0.004))
        user.commit()
        end = time.monotonic()
        thread.join()
        if not was_there:
            continue
        touched += 1
        overlapped += begin < times["sweep_end"] and times["sweep_begin"] < end
        admin_cursor.execute(f"SELECT FROM {table} WHERE id = %s", (session,))
        lost += admin_cursor.rowcount != 1
    print(rounds, touched, overlapped, lost)


main()
