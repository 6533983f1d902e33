-- Random keys of every type, text and bytes, in small and large encodings, compared with what another client reads.
\getenv start PG_ABS_SRCDIR
\set start :start '/test/lib/regress.sql'
\i :start
\! /usr/bin/python3 $PG_ABS_SRCDIR/test/lib/python/compare_random.py
