#!/usr/bin/python3
"""Keys as Python libraries write them: caches, sessions, jobs.

Usage: redis_clients.py PORT N      writes N keys of each kind into the Redis at 127.0.0.1:PORT.

Django has its sessions and its cache in one Redis, as SESSION_ENGINE = "django.contrib.sessions.backends.cache" does.
"""

import sys

import django
import flask
import redis
from django.conf import settings
from flask_session import Session
from rq import Queue


def write_django(port, n):
    settings.configure(
        CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://127.0.0.1:{port}/0"}},
        SESSION_ENGINE="django.contrib.sessions.backends.cache", SECRET_KEY="of the test")
    django.setup()
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import cache

    for number in range(n):
        session = SessionStore()
        session["user"] = number
        session.set_expiry(3600)
        session.save()
        cache.set(f"product-{number}", {"price": number}, 600)


def write_flask(port, n):
    application = flask.Flask("test")
    application.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=port))
    Session(application)

    @application.route("/")
    def index():
        flask.session["seen"] = True
        return "seen"

    for _ in range(n):
        application.test_client().get("/")


def write_rq(port, n):
    queue = Queue(connection=redis.Redis(port=port))
    for number in range(n):
        queue.enqueue("builtins.print", number)


def main():
    port, n = (int(argument) for argument in sys.argv[1:])
    write_django(port, n)
    write_flask(port, n)
    write_rq(port, n)


main()
