# shellcheck shell=bash
# Shared by the scripts: sourced by bash scripts that have `set -euo pipefail`.
#
# Sourcing changes to the repository's root and makes $work_dir, a private directory. At exit it is removed,
# after the command that is being waited for and every process that still runs inside it have been ended.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
export REDIS_SERVER=${REDIS_SERVER:-redis-server}  # or another one's path, also of a valkey-server
export LC_ALL=C.UTF-8
export LANG=$LC_ALL  # clusters of the TAP programs are made without LC_ALL

work_dir=$(mktemp -d "${TMPDIR:-/tmp}/prm.XXXXXX")
chmod 755 "$work_dir"  # the servers' user passes through
export TMPDIR=$work_dir  # of compilers and of the tests' own servers
child=                 # process group of the command that `limited` waits for

processes_in_work_dir() {
  local entry directory
  for entry in /proc/[0-9]*; do
    directory=$(readlink "$entry/cwd" 2>/dev/null) || continue
    if [[ $directory == "$work_dir"/* ]]; then echo "${entry#/proc/}"; fi
  done
}

clean_up() {
  trap '' INT TERM HUP
  local pids=()
  if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null || true; fi
  mapfile -t pids < <(processes_in_work_dir)
  # QUIT ends PostgreSQL without a checkpoint, TERM everything else.
  kill -QUIT "${pids[@]}" 2>/dev/null || true
  kill -TERM "${pids[@]}" 2>/dev/null || true
  for _ in {1..30}; do
    mapfile -t pids < <(processes_in_work_dir)
    if ((${#pids[@]} == 0)); then break; fi
    sleep 0.1
  done
  kill -KILL "${pids[@]}" 2>/dev/null || true
  if [[ -n $child ]]; then wait "$child" 2>/dev/null || true; fi
  rm -rf "$work_dir"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Before a command: makes it run with the right to install, and as a user that may own a cluster, which root may not.
as_root=(env)
as_server=(env)
if ((EUID == 0)); then as_server=(runuser -u postgres --); else as_root=(sudo -n); fi

# give_to_server PATH...: makes the servers' user the owner.
give_to_server() {
  if ((EUID == 0)); then chown -R postgres: "$@"; fi
}

# limited SECONDS COMMAND...: without stdin, in a process group of its own, ended after SECONDS. Unlike a command in
# the foreground it does not keep this script from acting on a signal.
limited() {
  local seconds=$1 status=0
  shift
  timeout --kill-after=10 "$seconds" "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  child=
  return "$status"
}

# build_extension: builds the extension and installs it into the PostgreSQL of $PG_CONFIG.
build_extension() {
  limited 1200 make -j2 PRM_WERROR=1 PRM_DEBUG=-g1 && limited 60 "${as_root[@]}" make install PG_CONFIG="$PG_CONFIG"
}

# start_postgres NAME [SETTING...]: starts a cluster of its own, reachable through a socket in its directory only, and
# exports PGHOST, PGPORT and PGUSER. Its log is $work_dir/NAME/log.
start_postgres() {
  local bindir
  bindir=$("$PG_CONFIG" --bindir)
  export PGHOST=$work_dir/$1 PGPORT=5432 PGUSER=postgres
  shift
  mkdir "$PGHOST"
  give_to_server "$PGHOST"
  (cd "$PGHOST" && "${as_server[@]}" "$bindir/initdb" --pgdata=data --username=postgres --auth=trust --encoding=UTF8 \
    --no-locale --no-sync) >"$work_dir/initdb.log"
  printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$PGHOST'" 'fsync = off' "$@" \
    >>"$PGHOST/data/postgresql.conf"
  (cd "$PGHOST" && "${as_server[@]}" "$bindir/pg_ctl" --pgdata=data --log=log --silent --wait start)
}

# stop_postgres: stops the cluster that start_postgres started last.
stop_postgres() {
  (cd "$PGHOST" && "${as_server[@]}" "$("$PG_CONFIG" --bindir)/pg_ctl" --pgdata=data --silent --mode=fast --wait stop)
}

# start_redis NAME [OPTION...]: starts an empty $REDIS_SERVER on a free port of 127.0.0.1; sets redis_port and redis_pid.
# Its directory is $work_dir/NAME, with its log.
start_redis() {
  local directory=$work_dir/$1
  mkdir -p "$directory"
  for _ in {1..20}; do
    redis_port=$((20000 + RANDOM % 10000))
    (cd "$directory" && exec "$REDIS_SERVER" --bind 127.0.0.1 --port "$redis_port" --dir "$directory" --logfile log \
      --save '' --appendonly no "${@:2}") </dev/null &
    redis_pid=$!
    # Whoever answers may be somebody else's server that had the port before.
    while kill -0 "$redis_pid" 2>/dev/null; do
      if redis-cli -p "$redis_port" info server 2>/dev/null | grep -q "process_id:$redis_pid"$'\r'; then return 0; fi
      sleep 0.05
    done
  done
  echo "$REDIS_SERVER does not start" >&2
  tail -n 20 "$directory/log" >&2
  return 1
}

# stop_redis: stops the server that start_redis started last.
stop_redis() {
  kill "$redis_pid"
  wait "$redis_pid" || true
}
