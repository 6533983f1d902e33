# PGXS build of the extension. `make && make install`, PG_CONFIG chooses the server.
EXTENSION = pg_redis_migrate
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" pg_redis_migrate.control)
DISTNAME = $(EXTENSION)-$(shell sed -n '1,/"version"/s/^ *"version": "\(.*\)",/\1/p' META.json)
MODULE_big = pg_redis_migrate
SOURCES = $(wildcard src/*.cpp src/*/*.cpp)
OBJS = $(SOURCES:.cpp=.o)
SQL_SCRIPT = $(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(SQL_SCRIPT)
DATA = $(wildcard extension/upgrades/*.sql)
EXTRA_CLEAN = $(SQL_SCRIPT) $(OBJS:.o=.d)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
PKG_CONFIG ?= pkg-config
LIBRARIES = hiredis libcares libssl libcrypto

# What debuggers are told. PRM_DEBUG=-g1, line numbers alone, makes the same code in three quarters of the time.
PRM_DEBUG = -g

# These stand behind PGXS's CXXFLAGS and CPPFLAGS, which bring the optimization and the hardening that PostgreSQL was
# built with, or those of the command line. PostgreSQL's headers are not ours to warn about: -isystem. Symbols are
# hidden and the version script names the few that PostgreSQL must find.
PRM_WARNINGS = -Wall -Wextra -Wshadow -Wnon-virtual-dtor $(if $(PRM_WERROR),-Werror)
PRM_CXXFLAGS = -std=c++17 -DNDEBUG -fno-omit-frame-pointer -fvisibility=hidden -fvisibility-inlines-hidden $(PRM_WARNINGS) \
	$(shell $(PKG_CONFIG) --cflags $(LIBRARIES))
PRM_EXPORTS = src/exports.map
SHLIB_LINK += $(shell $(PKG_CONFIG) --libs $(LIBRARIES)) -lstdc++ -Wl,--version-script=$(PRM_EXPORTS) -Wl,--exclude-libs,ALL

# make installcheck PRM_REDIS_PORT=6400: the SQL and isolation tests against a running server that preloads the library,
# and a Redis at that port of the same machine, which they empty again and again. See CONTRIBUTING.md.
REGRESS = $(shell sed -n 's/^test: //p' sql/schedule)
REGRESS_OPTS = --encoding=UTF8
ISOLATION = $(shell sed -n 's/^test: //p' test/isolation/schedule)
ISOLATION_OPTS = --encoding=UTF8 --inputdir=test/isolation --load-extension=$(EXTENSION)

# No bitcode: nothing here is worth inlining into a compiled expression, and it would double the build.
override with_llvm = no

include $(PGXS)

# Before 16 PGDLLEXPORT is empty.
ifeq ($(shell test $(MAJORVERSION) -lt 16 && echo yes),yes)
PRM_CXXFLAGS += -DPGDLLEXPORT='__attribute__((visibility("default")))'
endif

PRM_INCLUDES = -Isrc -isystem $(shell $(PG_CONFIG) --includedir-server)

%.o: %.cpp
	$(CXX) $(CXXFLAGS) $(PRM_CXXFLAGS) $(PRM_INCLUDES) $(CPPFLAGS) $(PRM_DEBUG) -MMD -MP -c -o $@ $<

src/module.o: PRM_CXXFLAGS += -DPRM_VERSION='"$(EXTVERSION)"'
src/module.o: pg_redis_migrate.control

$(shlib): $(PRM_EXPORTS)

-include $(OBJS:.o=.d)

$(SQL_SCRIPT): $(sort $(wildcard extension/*.sql)) pg_redis_migrate.control
	cat $(filter %.sql,$^) > $@

installcheck: require-redis
installcheck: export PGOPTIONS += -c regress.redis_port=$(PRM_REDIS_PORT)
require-redis:
	@test -n "$(PRM_REDIS_PORT)" || { echo 'PRM_REDIS_PORT must name the port of a Redis that may be emptied' >&2; exit 1; }

# The archive that PGXN takes, of what is committed.
DISTFILE = $(DISTNAME).zip
dist:
	git archive --format=zip --prefix=$(DISTNAME)/ --output=$(DISTFILE) HEAD
.PHONY: dist require-redis

# Medians beside what does the same elsewhere, on servers of their own; not tests.
bench:
	test/bench/run $(BENCH_OPTIONS)
bench-quick:
	test/bench/run --keys 50000 --rounds 1 $(BENCH_OPTIONS)
bench-expiry:
	test/bench/expiry $(BENCH_OPTIONS)
bench-cutover:
	test/bench/cutover $(BENCH_OPTIONS)
bench-reverse:
	test/bench/reverse $(BENCH_OPTIONS)
bench-live:
	test/bench/live $(BENCH_OPTIONS)
bench-live-soak:
	test/bench/soak $(BENCH_OPTIONS)
bench-memory:
	test/bench/memory $(BENCH_OPTIONS)
bench-ratelimit:
	test/bench/ratelimit $(BENCH_OPTIONS)
# An audit beside a bare SCAN.
bench-audit:
	test/bench/audit $(BENCH_OPTIONS)
.PHONY: bench bench-audit bench-cutover bench-expiry bench-live bench-live-soak bench-memory bench-quick bench-ratelimit bench-reverse
