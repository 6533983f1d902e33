#include "pg/settings.h"

#include "pg/pg.h"

namespace prm::pg::settings {

int batch_rows = 5000;
int batch_size_kb = 8 * 1024;
int bytes_in_flight_kb = 8 * 1024;
int max_reply_size_kb = 16 * 1024;
int max_value_size_kb = 256 * 1024;
int max_snapshot_size_mb = -1;
int max_spool_size_mb = 16 * 1024;
int live_delete_limit = 10;
int progress_interval_s = 5;
int prune_limit = 10;
int live_reread_share = 20;
int live_large_value_rate_kb = 64 * 1024;
int connect_timeout_ms = 10 * 1000;
int command_timeout_ms = 60 * 1000;
int reconnect_timeout_ms = 30 * 1000;
int max_workers = 8;
char *databases = nullptr;
int history_retention_s = 30 * 86400;
int journal_retention_s = 7 * 86400;
int max_outbox_rows = 1000000;
int rate_limit_memory_kb = 32 * 1024;
int rate_limit_save_interval_ms = 5 * 1000;
int max_policies_per_role = 100;
int lockout_memory_kb = 8 * 1024;
int attempt_queue_size = 4096;

void Define() {
  DefineCustomIntVariable("pg_redis_migrate.batch_rows", "Maximum number of keys stored in one transaction.",
                          nullptr, &batch_rows, batch_rows, 1, 1000000, PGC_USERSET, 0, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("pg_redis_migrate.batch_size",
                          "Maximum size of keys and values stored in one transaction.",
                          "A single larger value makes a larger batch.", &batch_size_kb, batch_size_kb, 64,
                          1024 * 1024, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.bytes_in_flight", "Maximum size of unread replies that Redis has to buffer.",
      "Unread replies count towards Redis' maxmemory.", &bytes_in_flight_kb, bytes_in_flight_kb, 64,
      1024 * 1024, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.max_reply_size",
                          "Values that take more memory in Redis are read in pieces.", nullptr,
                          &max_reply_size_kb, max_reply_size_kb, 1, 1000 * 1024, PGC_USERSET, GUC_UNIT_KB,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.max_value_size",
                          "Values that take more memory in Redis are rejected by name.", nullptr,
                          &max_value_size_kb, max_value_size_kb, 1, 1000 * 1024, PGC_USERSET, GUC_UNIT_KB,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.max_snapshot_size",
                          "Maximum size of a snapshot of a Redis that is kept on the database server's disk.",
                          "-1 means no limit. Source 'replication' reads such snapshots.",
                          &max_snapshot_size_mb, max_snapshot_size_mb, -1, INT_MAX, PGC_SUSET, GUC_UNIT_MB,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.max_spool_size",
                          "Maximum size of the changes that a live run keeps on the database server's disk.",
                          "At the limit it leaves the server until there is room again.", &max_spool_size_mb,
                          max_spool_size_mb, 64, INT_MAX, PGC_SUSET, GUC_UNIT_MB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.live_delete_limit",
                          "Maximum percentage of a mapping's rows that a live run removes because a snapshot "
                          "lacks their keys.",
                          "Beyond that, and a hundred rows or all, it fails until it is started with force.",
                          &live_delete_limit, live_delete_limit, 0, 100, PGC_USERSET, 0, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("pg_redis_migrate.progress_interval",
                          "Interval of the notices that say how far a run is; 0 sends none.", nullptr,
                          &progress_interval_s, progress_interval_s, 0, 86400, PGC_USERSET, GUC_UNIT_S,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.prune_limit",
                          "Maximum percentage of a mapping's rows that a run with prune removes.",
                          "Beyond that, and a hundred rows, it leaves them, unless it is run with force.",
                          &prune_limit, prune_limit, 0, 100, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.live_reread_share",
                          "Maximum percentage of a Redis' time that a live run takes to read keys again.",
                          "It takes less as long as that Redis answers half as fast as it used to.",
                          &live_reread_share, live_reread_share, 1, 100, PGC_USERSET, 0, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("pg_redis_migrate.live_large_value_rate",
                          "Maximum amount of large values that a live run reads again in a second.",
                          "Values that keep changing wait meanwhile.", &live_large_value_rate_kb,
                          live_large_value_rate_kb, 1, INT_MAX, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.connect_timeout", "Maximum time to connect to Redis and to authenticate.",
      "The server option connect_timeout takes precedence.", &connect_timeout_ms, connect_timeout_ms, 100,
      86400 * 1000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.command_timeout", "Maximum time to wait for data from Redis before a command fails.",
      "The server option command_timeout takes precedence.", &command_timeout_ms, command_timeout_ms, 100,
      86400 * 1000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.reconnect_timeout",
                          "Maximum time a run, or an audit of a cluster, tries to restore a lost connection.",
                          nullptr, &reconnect_timeout_ms, reconnect_timeout_ms, 0, 86400 * 1000, PGC_USERSET,
                          GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("pg_redis_migrate.databases",
                             "Databases whose background work is scheduled and resumed after a restart.",
                             "Needs pg_redis_migrate in shared_preload_libraries.", &databases, "",
                             PGC_SIGHUP, GUC_LIST_INPUT, nullptr, nullptr, nullptr);
  if (process_shared_preload_libraries_in_progress)
    DefineCustomIntVariable("pg_redis_migrate.max_workers",
                            "Maximum number of background workers that run at the same time.",
                            "Each also needs one of max_worker_processes.", &max_workers, max_workers, 1,
                            1000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.history_retention",
                          "Time to keep the history of sweeps and refreshes.", nullptr, &history_retention_s,
                          history_retention_s, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.max_policies_per_role",
      "Maximum number of lockout policies, and of rate limit policies, that a role can own in a database.",
      "Each takes shared memory.", &max_policies_per_role, max_policies_per_role, 0, 1000000, PGC_SUSET, 0,
      nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.max_outbox_rows", "Maximum number of changes that wait for a reverse feed.",
      "Beyond that, all rows of the mapping are written once Redis can be reached.", &max_outbox_rows,
      max_outbox_rows, 100, INT_MAX, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.journal_retention",
                          "Time to keep the journal of what runs and live sync did to rows.",
                          "0 keeps it until the end of the run.", &journal_retention_s, journal_retention_s,
                          0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, nullptr, nullptr, nullptr);
  // Settings of shared memory exist only where the library is preloaded.
  if (process_shared_preload_libraries_in_progress) {
    DefineCustomIntVariable(
        "pg_redis_migrate.rate_limit_memory", "Shared memory for the states of rate limits.",
        "A key takes 48 bytes while it is limited.", &rate_limit_memory_kb, rate_limit_memory_kb, 64,
        MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB, nullptr, nullptr, nullptr);
    DefineCustomIntVariable(
        "pg_redis_migrate.rate_limit_save_interval", "Time between saves of the states of rate limits.",
        "0 saves them only when the server is shut down.", &rate_limit_save_interval_ms,
        rate_limit_save_interval_ms, 0, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("pg_redis_migrate.lockout_memory", "Shared memory for the counters of lockouts.",
                            "A counter takes 128 bytes.", &lockout_memory_kb, lockout_memory_kb, 64,
                            MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB, nullptr, nullptr, nullptr);
    DefineCustomIntVariable("pg_redis_migrate.attempt_queue_size",
                            "Login attempts that can wait in shared memory to be written to their table.",
                            "Each takes 1300 bytes. More are dropped, and counted.", &attempt_queue_size,
                            attempt_queue_size, 1, 100000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
  }
  MarkGUCPrefixReserved("pg_redis_migrate");
}

}  // namespace prm::pg::settings
