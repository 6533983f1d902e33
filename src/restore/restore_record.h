// Restores as the extension's tables keep them.
#pragma once

#include "pg/pg.h"
#include "sink/key_writer.h"

namespace prm {

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class RestoreRecord {
 public:
  struct Parameters {
    std::string migration;
    std::string server;
    std::string source;  // archive, rejects
    std::optional<std::string> pattern;
    bool replaces = false;
    bool is_dry = false;
  };
  // Continues the last restore with these parameters if it did not end and the migration was not run since;
  // otherwise begins one.
  explicit RestoreRecord(const Parameters &parameters);

  int64 id() const { return id_; }
  const std::string &position() const { return position_; }
  bool is_continued() const { return is_continued_; }

  // Counts keys, notes those that failed, and moves the position behind them.
  void Add(const std::vector<source::Entry> &entries, const std::vector<sink::WrittenKey> &written,
           uint64_t by_commands, const std::string &position);

  struct Summary {
    int64 keys = 0;
    int64 restored = 0;
    int64 exists = 0;
    int64 expired = 0;
    int64 failed = 0;
    int64 without_pending = 0;  // of those restored
    int64 by_commands = 0;
  };
  Summary Sum() const;

  void Complete() const;
  void Fail(const std::string &sqlstate, const std::string &message) const;

 private:
  int64 id_ = 0;
  std::string position_;
  bool is_continued_ = false;
};

}  // namespace prm
