// The parts of a level in the record of a run.
#include "pg/identity.h"
#include "pg/spi.h"
#include "run/run_record.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

void RunRecord::DropParts(int level) {
  {
    // This waits for those who are about to commit what they have read; from then on nobody does. It holds no
    // other lock that they may want.
    pg::AsExtensionOwner as_owner;
    Spi::Execute(
        R"sql(UPDATE redis_migrate.run_part
              SET pid = NULL, sqlstate = '55000', message = 'The source is being divided anew'
              WHERE run_id = $1 AND level = $2 AND NOT done)sql",
        {SqlParam::Int8(id_), SqlParam::Int4(level)});
  }
  Spi::Commit();
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"run_count", "reject", "deferred", "run_part"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE run_id = $1 AND level = $2",
                 {SqlParam::Int8(id_), SqlParam::Int4(level)});
  Spi::Execute("DELETE FROM redis_migrate.page_key WHERE run_id = $1", {SqlParam::Int8(id_)});
  SetPart(0);
  NoteRestart();
  BeginLevel(level);
}

void RunRecord::AddRepeatedSlots(int level, uint64 slots) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run_part
            SET repeated_slots = repeated_slots + $4
            WHERE run_id = $1 AND level = $2 AND part = $3)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_),
       SqlParam::Int8(static_cast<int64>(slots))});
}

uint64 RunRecord::CountRepeatedSlots(int level) const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT coalesce(sum(repeated_slots), 0)::bigint
            FROM redis_migrate.run_part
            WHERE run_id = $1 AND level = $2)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level)});
  return static_cast<uint64>(rows[0].Int8(0));
}

}  // namespace prm
