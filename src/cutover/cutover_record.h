// Cutovers as the extension's tables keep them: the step that is about to be taken, and what undoing it
// takes.
#pragma once

#include "cutover/masters.h"
#include "pg/pg.h"

namespace prm {

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class CutoverRecord {
 public:
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

  // The last one that has handed the family of a pattern over, unless it was given back since; nothing:
  // set_family_state has, or nobody.
  static std::optional<CutoverRecord> FindLast(const std::string &migration, const std::string &pattern);

  int64 id() const { return id_; }
  const Parameters &parameters() const { return parameters_; }
  const std::string &step() const { return step_; }
  // Whether the pause that it has asked for may last.
  bool MayBePaused() const { return may_be_paused_; }

  // Whether this database has begun it, not one of which it is a copy.
  bool IsOfHere() const { return is_of_here_; }

  // The step that comes next.
  void Take(const std::string &step);
  // That, and when a pause of the masters ends which begins now.
  void TakePause(int64 most_ms);

  void AddUsers(const std::vector<FencedUser> &users) const;
  std::vector<FencedUser> ReadUsers() const;

  void SavePause(double paused_ms) const;
  void SaveCompared(int64 keys) const;
  // state: completed, undone. sqlstate, message: why.
  void Finish(const std::string &state, const std::string &sqlstate = "", const std::string &message = "");

 private:
  CutoverRecord() = default;
  static std::optional<CutoverRecord> Find(const std::string &condition, const std::string &migration,
                                           const std::string &argument);

  Parameters parameters_;
  int64 id_ = 0;
  std::string step_;
  bool may_be_paused_ = false;
  bool is_of_here_ = true;
};

}  // namespace prm
