// One pass of a run over its source, or over a part of it: each batch is stored with its checkpoint.
#pragma once

#include "connect/source_reader.h"
#include "run/ledger_merges.h"
#include "run/level_names.h"
#include "run/progress_notice.h"
#include "run/run_record.h"
#include "store/batch.h"

namespace prm {

// Thrown after a batch with rejects has been committed and on_error is 'stop'.
class StoppedByReject : public pg::Failure {
 public:
  StoppedByReject(int64 run_id, const std::string &message, const std::string &detail)
      : Failure(
            ERRCODE_DATA_EXCEPTION, message, detail,
            "Change the mapping, or CALL redis_migrate.run again to continue after the batch. SELECT * FROM "
            "redis_migrate.rejects WHERE run_id = " +
                std::to_string(run_id) + ".") {}
};

class Pass {
 public:
  // Its arguments must outlive it.
  Pass(const Migration &migration, const RunParameters &parameters, const Routing &routing,
       RunRecord &record);

  // Reads the source from a position to its end and stores what belongs to the level. first: as SourceReader.
  // part: beside other processes that read other parts. between, if given, is called after each batch, with a
  // transaction open that is committed afterwards. Returns how many slots of a cluster were read more than
  // once. Errors: those of SourceReader and of BatchStore::Process; StoppedByReject; what `between` throws.
  uint64 Read(int level, std::string position, bool first, const std::optional<SourcePart> &part = {},
              const std::function<void()> &between = {});

  // Other processes are about to add to the ledgers: what this one has recorded no longer says what they
  // hold.
  void ShareLedgers() { recorded_.reset(); }

  // Stores entries that a foreign key or a lower key refused at this level, again and again, as rows may wait
  // for one another, until none of them finds what it waits for.
  void RetryDeferred(int level);

 private:
  struct StoreOptions {
    bool recount = false;      // the entries were counted as read before
    bool defer = false;        // keep what is refused for the end of the level
    bool goes_beyond = false;  // as source::Batch
    uint64 expected_keys = 0;  // likewise
  };

  void Restart(int level);
  size_t Store(std::vector<const source::Entry *> entries, int level, const std::string &before,
               const std::string &position, const StoreOptions &options);
  std::vector<const source::Entry *> StorePart(const std::vector<const source::Entry *> &entries, int level,
                                               const std::string &before, const std::string &position,
                                               const StoreOptions &options, Tally &tally, size_t *fresh,
                                               std::string *first_reject);

  const Migration &migration_;
  const RunParameters &parameters_;
  const Routing &routing_;
  RunRecord &record_;
  BatchStore store_;
  ProgressNotice progress_;
  bool forgets_archived_;  // the archive has keys that may have a mapping by now
  bool beside_others_ = false;
  bool has_deferred_ = false;                      // some keys of the level may wait for its end
  std::optional<std::set<std::string>> claiming_;  // see RunRecord::ReadClaiming
  // The rows in full ledgers, and the keys whose rows are in packed ones, that were empty when the run began,
  // and that only this process adds to.
  std::optional<HashFilter> recorded_;
  LedgerMerges merges_;
  LevelNames names_;
  KeySet stored_;  // keys that the position does not cover, though they are done
};

}  // namespace prm
