// Cutovers as the extension's tables keep them: the step that is about to be taken, and what undoing it
// takes.
#pragma once

#include "cutover/masters.h"
#include "pg/pg.h"
#include "pg/session_lock.h"

namespace prm {

// The instance of a cutover: a copy of the database on the same server is not the one that began it.
std::string ThisDatabase();

// The lock of the session that cuts a migration over, or back.
LOCKTAG CutoverLockTag(const std::string &migration);
// The lock of the session that does so with the masters of a server.
LOCKTAG CutoverServerLockTag(const std::string &server);
// Whether one has it. Needs SPI.
bool IsBeingCutOver(const std::string &migration);

// Commits to disk, whatever the session has set: a crash must not forget anything that Redis is about to be
// told. A setting that also waits for standbys stays.
void CommitToDisk();

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class CutoverRecord {
 public:
  // One that has neither completed nor been undone, and is this database's.
  struct Unfinished {
    int64 id;
    std::string migration;
    Oid owner;
    bool is_under_way;  // a session has its lock: it will complete or undo it
  };
  static std::vector<Unfinished> FindAllUnfinished();

  struct Parameters {
    std::string migration;
    std::vector<std::string> patterns;
    std::string to_state;  // postgres, both, redis
    std::string fence;     // acl, kill, confirmed; empty: of a cutback
  };
  // Begins one.
  explicit CutoverRecord(const Parameters &parameters);

  // The one of the migration that has neither completed nor been undone. Errors: 55000 if another server, or
  // another database, has begun it, of which this one is a copy.
  static std::optional<CutoverRecord> FindUnfinished(const std::string &migration);

  int64 id() const { return id_; }
  const Parameters &parameters() const { return parameters_; }
  const std::string &step() const { return step_; }
  // For messages: "cutover 3 of migration …".
  std::string Name() const;
  // Whether the pause that it has asked for may last.
  bool MayBePaused() const { return may_be_paused_; }

  // The step that comes next; how long the one before it took is kept, too. The commit is on disk.
  void Take(const std::string &step);
  // As Take, but a crash may forget it, and then the step is that before it: to undo both is the same.
  void TakeInPause(const std::string &step);
  // As Take, and when a pause of the masters ends which begins now.
  void TakePause(int64 most_ms);

  void SavePause(double paused_ms) const;
  // touched: keys that have changed since the last verification began; -1: nobody knows.
  void SaveCompared(int64 keys, int64 touched) const;
  // state: completed, undone. sqlstate, message: why.
  void Finish(const std::string &state, const std::string &sqlstate = "", const std::string &message = "");

 private:
  CutoverRecord() = default;
  void SaveStep(const std::string &step);

  Parameters parameters_;
  int64 id_ = 0;
  std::string step_;
  bool may_be_paused_ = false;
};

}  // namespace prm
