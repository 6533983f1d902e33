// A comparison of what Redis has with the tables of a migration.
//
// Compares the source with the tables, in parts side by side as a run reads it, and then looks for rows that
// no key yields.
#pragma once

#include "mapping/migration_lock.h"
#include "pg/spi.h"
#include "verify/source_comparison.h"

namespace prm {

class Verification {
 public:
  struct Parameters : VerificationRecord::Parameters {
    std::optional<std::string> priority;  // only mappings of this one
    std::optional<int> workers;           // processes that read; nothing: it chooses
  };

  // Begins it. Commits. Errors: those of LoadMigration and Routing.
  explicit Verification(Parameters parameters);

  // Commits after each batch. Errors: those of the source and of BatchStore::Process.
  void Execute();
  // Records, after an error, how it ended.
  void Fail(const pg::Problem &problem);

  // After Execute, the mappings that have rows without a key, with how many there are.
  std::map<std::string, int64> ExtraRows();

 private:
  // By these a server tells that it is written to.
  struct Writes {
    std::string run_id, changes, last_save;
    // Changes are counted from a save on.
    bool CountsAs(const Writes &other) const {
      return run_id == other.run_id && last_save == other.last_save;
    }
  };

  // Notes how far the server's writes are, to compare with at the end.
  void NoteWrites();
  void CompareSource();
  // Waits for the source: the caller has committed. first: what cannot be reached now is an error.
  SourceDivision AskSource(bool first) const;
  // Gives the source parts, and processes to read them. False: it is read whole.
  bool Divide(const SourceDivision &source);
  // False: the source is no longer the one that was divided.
  bool CompareParts(const SourceDivision &source);
  void FindUnmet();
  std::vector<std::string> Reasons(const VerificationRecord::Findings &all);
  static bool Proves(const VerificationRecord::Findings &all, const std::vector<std::string> &reasons);
  void Report(const VerificationRecord::Findings &all, const std::vector<std::string> &reasons) const;

  std::optional<Writes> AskWrites() const;
  bool HasServer() const;

  Parameters parameters_;
  Migration migration_;
  Routing routing_;
  VerificationRecord record_;
  SourceComparison comparison_;
  std::unique_ptr<Helpers> helpers_;
  PartLock leads_;
  VerificationRecord::Findings in_parts_;
  bool is_followed_ = false;    // live sync is under way
  bool is_extra_known_ = true;  // live sync got to the end of the second reading
  std::optional<Writes> writes_before_;
};

}  // namespace prm
