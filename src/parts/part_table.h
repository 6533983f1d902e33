// The parts of a source that several processes read side by side, as the extension's tables keep them.
#pragma once

#include "connect/source_division.h"
#include "parts/helpers.h"
#include "pg/spi.h"

namespace prm {

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class PartTable {
 public:
  struct Part {
    int number = 0;
    std::string share;  // as SourcePart::ToString
    std::string position;
    bool done = false;
    std::optional<std::string> sqlstate;  // of the error that ended its reading in another process
    std::optional<std::string> message;
    int readers = 1;
    int pid = 0;  // of the process that read it last; 0: none
  };

  static PartTable OfRun(int64 run_id, int level);
  static PartTable OfVerification(int64 verification_id);

  const Work &work() const { return work_; }
  // Of the run; of a verification PartLock::kVerification.
  int level() const { return level_; }

  // Adds parts.
  void Divide(const std::vector<SourceDivision::Part> &parts) const;
  std::vector<Part> Read() const;
  // Notes that this process reads the part; the caller has its lock. Returns the part as its last reader left
  // it, with that reader's pid; nullopt when it is done or its reading has failed.
  std::optional<Part> Take(int part) const;
  // Errors: 55000 when this process does not read the part any more.
  void Finish(int part) const;
  // Ends the reading of a part with an error, if this process still reads it.
  void Fail(int part, const std::string &sqlstate, const std::string &message) const;
  // Sets how many processes share the ceiling of the server.
  void SetReaders(int readers) const;

 private:
  PartTable(const Work &work, int level, std::string table, std::string mine);

  Work work_;
  int level_;
  std::string table_;
  std::string mine_;  // the condition for the parts p of this work
};

// Whether all parts of an earlier division are still parts of the source, with the same keys.
bool StillHasAll(const SourceDivision &source, const std::vector<PartTable::Part> &parts);

// Throws 55000 unless a statement has changed the row of a part that this process reads: while it read, the
// work may have got another leader, which has divided the source anew.
void RequireRead(const pg::Rows &changed, const Work &work, int part);

}  // namespace prm
