// Runs as the extension's tables keep them: parameters, checkpoint, counts, rejects.
#pragma once

#include "migrate/catalog.h"
#include "migrate/tally.h"

namespace prm::migrate {

struct RunParameters {
  bool dry_run = false;
  std::optional<std::string> priority;
  std::optional<std::string> mapping;
  std::string source;
  std::string on_error = "continue";
  bool prune = false;
  std::string begin;  // the position that passes begin at: of a file, which one; otherwise empty
};

class RunRecord {
 public:
  // Goes on with the last run of the migration if it was interrupted, has the same parameters and the
  // definition has not changed since; begins a new one otherwise.
  static RunRecord Begin(const std::string &migration, const RunParameters &parameters);

  int64 id() const { return id_; }
  bool resumed() const { return resumed_; }
  int level() const { return level_; }
  const std::string &position() const { return position_; }

  void SetEstimate(int64 keys);
  // Adds to the keys that Redis evicted while it was read.
  void AddEvicted(int64 keys);
  // Writes counts, rejects and deferred keys of a batch, and the checkpoint, in the caller's transaction.
  void Save(const Tally &tally, int level, const std::string &position);
  // Whether the run has a reject of that key at that level: a batch that is read again has it again.
  bool HasReject(int level, const source::Entry &entry) const;
  // Forgets what was counted at a level, because the source begins it again.
  void RestartLevel(int level);
  // Notes the keys of a batch that its position does not cover, for whoever goes on from it; or, when it
  // does, forgets those of earlier batches.
  void NotePageKeys(const std::vector<const source::Entry *> &entries, bool beyond);
  // What NotePageKeys left.
  std::set<std::pair<int, std::string>> ReadPageKeys() const;
  // Entries of the level that wait for their foreign keys, at most `limit` of those after (db, key) in the
  // order of database and key; taken out of the table.
  std::vector<source::Entry> TakeDeferred(int level, int db, Bytes key, int limit);
  // Ends the run: state, and the error if there was one.
  void Finish(const std::string &state, const std::optional<std::string> &sqlstate,
              const std::optional<std::string> &message);

  struct Sums {
    int64 read = 0;
    std::map<std::string, int64> outcomes;
    std::string unbalanced;  // the first pattern whose sums differ, with the numbers; empty: all agree
    std::string reject_summary;
    double seconds = 0;
    int64 evicted = 0;  // keys that Redis evicted while it was read
  };
  Sums ReadSums() const;

 private:
  int64 id_ = 0;
  bool resumed_ = false;
  int level_ = 0;
  std::string position_;
};

}  // namespace prm::migrate
