// What a run tells the client that called or awaited it.
#pragma once

#include "run/run_record.h"

namespace prm {

// Makes a run the one that redis_migrate.last_run_id() names in this session.
void NoteLastRun(int64 run_id);

// Reports as a NOTICE the outcomes of the keys, and where to look. what: the run and its state.
void TellOutcomes(const std::string &what, int64 run_id, const RunRecord::Sums &sums);
// Reports as a NOTICE what became of the rows of each mapping. Needs SPI.
void TellRows(const RunRecord &record, const std::string &migration);
// Reports as WARNINGs how many rows somebody else had changed or deleted that the run has written over,
// deleted or put back, as far as ledgers were merged.
void TellChangedRows(const std::string &migration, int64 run_id,
                     const std::vector<RunRecord::ChangedRows> &found);

}  // namespace prm
