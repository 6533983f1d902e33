// CALL redis_migrate.verify(…): compares Redis with the tables in the session that calls it.
#include "connect/server_file.h"
#include "parts/worker_count.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/spi.h"
#include "verify/verification.h"

// redis_migrate.verify(migration text, sample double precision, mapping text, source text, max_differences
// integer, workers integer): see the SQL comment. Errors: 2D000 in a transaction block, 42501 not the owner,
// 42704 no such mapping, 22023, those of the source and of the mappings.
PRM_FUNCTION(verify) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.verify commits after each batch");
  Verification::Parameters parameters;
  parameters.migration = pg::TextArgument(fcinfo, 0, "migration");
  if (!PG_ARGISNULL(1)) parameters.sample = PG_GETARG_FLOAT8(1);
  parameters.mapping = pg::OptionalTextArgument(fcinfo, 2);
  std::optional<std::string> const source = pg::OptionalTextArgument(fcinfo, 3);
  if (!PG_ARGISNULL(4)) parameters.max_differences = PG_GETARG_INT32(4);
  if (parameters.sample && !(*parameters.sample > 0 && *parameters.sample < 1))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "sample must be between 0 and 1", "",
                      "It is a share of the keys: 0.01 is one of a hundred. NULL compares all of them.");
  if (parameters.max_differences < 0)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_differences must not be negative");
  parameters.workers = WorkersArgument(fcinfo, 5);
  pg::Spi spi(true);
  Migration const migration = LoadMigration(parameters.migration);
  if (source) CheckSource(*source);
  parameters.source = source ? *source : migration.source;
  if (parameters.source == "archive")
    throw pg::Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "verify needs source 'scan', 'rdb' or 'replication'",
        "The archive is what earlier runs have kept, not what Redis has.",
        "CALL redis_migrate.verify(" + pg::QuoteLiteral(migration.name) + ", source => 'scan').");
  RequireSource(migration, parameters.source);
  Verification verification(parameters);
  try {
    verification.Execute();
  } catch (...) {
    verification.Fail(pg::CurrentProblem());
    throw;
  }
  PG_RETURN_VOID();
}
