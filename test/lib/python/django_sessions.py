#!/usr/bin/python3
"""Django as the client of its own session table: its migration, its session engine, its clearsessions.

Usage: django_sessions.py SOCKET_DIRECTORY PORT COMMAND [ARGUMENT...]
  migrate               creates the table as Django does
  create N SECONDS      saves N sessions that expire so many seconds from now, and prints their keys
  load KEY...           prints the value that each session holds, "-" for one that Django does not find
  extend KEY SECONDS    lets a session expire so many seconds from now, as a request that is saved does
  clearsessions         Django's own sweep
"""

import sys

import django
from django.conf import settings


def main():
    host, port, command, *arguments = sys.argv[1:]
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "HOST": host, "PORT": port}},
        INSTALLED_APPS=["django.contrib.sessions"], SECRET_KEY="of the test", USE_TZ=True, TIME_ZONE="Europe/Berlin")
    django.setup()
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    if command == "migrate":
        call_command("migrate", "sessions", verbosity=0)
    elif command == "clearsessions":
        call_command("clearsessions")
    elif command == "create":
        for number in range(int(arguments[0])):
            session = SessionStore()
            session["user"] = number
            session.set_expiry(int(arguments[1]))
            session.save()
            print(session.session_key)
    elif command == "load":
        for key in arguments:
            print(SessionStore(session_key=key).get("user", "-"))
    elif command == "extend":
        session = SessionStore(session_key=arguments[0])
        session.set_expiry(int(arguments[1]))
        session.save()


main()
