#!/usr/bin/python3
"""An application that knows nothing of PostgreSQL: customers fill and empty carts in Redis, until Redis refuses that.

Usage: shopper.py [--port N] [--user NAME --password WORD] [--customers N] > carts.json
It connects with redis-py as any application does, and begins with the carts that Redis has. When its user has lost the right to
write, it prints the carts as it remembers them, as JSON: what Redis has acknowledged, and nothing else.
"""
import argparse
import json
import random
import sys
import time

import redis

ITEMS = ["apples", "bread", "cheese", "dates", "eggs"]


def stored(client):
    """The carts in Redis, by customer. Nobody writes to them meanwhile."""
    carts = {}
    for key in client.scan_iter("cart:*", count=1000):
        carts[int(key.split(":")[1])] = {item: int(count) for item, count in client.hgetall(key).items()}
    return carts


def shop(client, customers):
    """Fills carts until the user may not write any more. Returns the carts, by customer."""
    carts = stored(client)
    writes = 0
    while True:
        customer = random.randrange(1, customers + 1)
        key = "cart:%d" % customer
        try:
            if random.random() < 0.02:
                client.delete(key)
                carts.pop(customer, None)
            else:
                item = random.choice(ITEMS)
                carts.setdefault(customer, {})[item] = client.hincrby(key, item, random.randrange(1, 4))
        except redis.exceptions.NoPermissionError:
            print("%d writes, then Redis refused one" % writes, file=sys.stderr)
            return carts
        writes += 1
        if writes % 20 == 0:
            time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6379)
    parser.add_argument("--user", default="shop")
    parser.add_argument("--password", default="secret")
    parser.add_argument("--customers", type=int, default=2000)
    options = parser.parse_args()
    client = redis.Redis(port=options.port, username=options.user, password=options.password, decode_responses=True)
    json.dump(shop(client, options.customers), sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
