#include "pg/settings.h"

#include "pg/pg.h"

namespace prm::pg::settings {

int batch_rows = 5000;
int batch_size_kb = 8 * 1024;
int bytes_in_flight_kb = 8 * 1024;
int max_reply_size_kb = 16 * 1024;
int max_value_size_kb = 256 * 1024;
int connect_timeout_ms = 10 * 1000;
int command_timeout_ms = 60 * 1000;
int reconnect_timeout_ms = 30 * 1000;

void Define() {
  DefineCustomIntVariable("pg_redis_migrate.batch_rows", "Keys that are stored in one transaction.", nullptr,
                          &batch_rows, batch_rows, 1, 1000000, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.batch_size",
                          "Bytes of keys and values that are stored in one transaction.",
                          "A single larger value makes a larger batch.", &batch_size_kb, batch_size_kb, 64,
                          1024 * 1024, PGC_USERSET, GUC_UNIT_KB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.bytes_in_flight", "Bytes of replies that Redis may have to hold at a time.",
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
  DefineCustomIntVariable("pg_redis_migrate.connect_timeout", "Time to connect to a Redis and to log in.",
                          "The server option connect_timeout goes first.", &connect_timeout_ms,
                          connect_timeout_ms, 100, 86400 * 1000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable(
      "pg_redis_migrate.command_timeout", "Time without a byte from Redis before a command is given up.",
      "The server option command_timeout goes first.", &command_timeout_ms, command_timeout_ms, 100,
      86400 * 1000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("pg_redis_migrate.reconnect_timeout",
                          "How long a run tries to get a lost connection back.", nullptr,
                          &reconnect_timeout_ms, reconnect_timeout_ms, 0, 86400 * 1000, PGC_USERSET,
                          GUC_UNIT_MS, nullptr, nullptr, nullptr);
  MarkGUCPrefixReserved("pg_redis_migrate");
}

}  // namespace prm::pg::settings
