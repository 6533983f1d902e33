// A comparison of what Redis has with the tables of a migration.
//
// Reads the source once, as a run does. Keys whose rows are not equal are read again, by name, until their
// value holds still: the application, a run or live sync may be writing. Then it looks for rows that no key
// yields.
#pragma once

#include "core/siphash.h"
#include "pg/spi.h"
#include "store/batch.h"
#include "verify/key_reader.h"
#include "verify/verification_record.h"

namespace prm {

class Verification {
 public:
  struct Parameters : VerificationRecord::Parameters {
    std::optional<std::string> priority;  // only mappings of this one
    int64 max_differences = 100;          // rows that are kept of each mapping
  };

  // Begins it. Commits. Errors: those of LoadMigration and Routing.
  explicit Verification(Parameters parameters);

  // Commits after each batch. Errors: those of the source and of BatchStore::Process.
  void Execute();
  // Records, after an error, how it ended.
  void Fail(const pg::Problem &problem) const;

  // After Execute, the mappings that have rows without a key, with how many there are.
  std::map<std::string, int64> ExtraRows() const;

 private:
  // A key that has a row that is not equal.
  struct Doubt {
    Hash128 value;
    std::optional<int64_t> expires_at_ms;
    int readings = 0;  // of this value, in a row, each followed by a comparison that found a difference
  };
  class SampleFilter : public source::KeyFilter {
   public:
    SampleFilter(const Routing &routing, std::optional<double> share);
    source::KeyDecision Classify(int db, Bytes key) override;

   private:
    PassFilter filter_;
    std::optional<uint64_t> below_;
    SipKey secret_;
  };
  // By these a server tells that it is written to.
  struct Writes {
    std::string run_id, changes, last_save;
    // Changes are counted from a save on.
    bool CountsAs(const Writes &other) const {
      return run_id == other.run_id && last_save == other.last_save;
    }
  };

  void ReadSource(bool counts);
  void Take(source::Batch &batch, bool counts);
  // Compares entries; those that are not equal are returned, and all others counted.
  BatchComparison Compare(const std::vector<source::Entry> &entries, bool describes, bool counts);
  void Count(const source::Entry &entry, BatchComparison::OfKey &found);
  void AddDifference(const source::Entry *entry, const RowDifference &difference);
  void SettleDoubts();
  void TakeAgain(std::vector<source::Entry> &entries, const std::optional<redis::ReplicationPoint> &point,
                 int round);
  void CountUnsettled();
  void FindUnmet();
  void Restart();
  std::vector<std::string> Reasons();
  bool Proves(const std::vector<std::string> &reasons) const;
  void Report(const std::vector<std::string> &reasons) const;

  std::optional<Writes> AskWrites() const;
  bool IsFollowed() const;
  bool IsFollowing() const;
  bool IsFeed() const;
  bool WaitForLive();
  static bool WaitUntil(const std::string &question, std::initializer_list<pg::SqlParam> parameters);
  bool WaitForStream(const redis::ReplicationPoint &point) const;
  bool WaitForFeed() const;
  bool HasServer() const;

  Parameters parameters_;
  Migration migration_;
  Routing routing_;
  BatchStore store_;
  SampleFilter filter_;
  VerificationRecord record_;
  KeyReader reader_;
  VerificationRecord::Keys keys_;
  std::map<std::string, VerificationRecord::Counts> counts_;  // by mapping
  std::map<std::string, int64> rules_;                        // of keys that were rejected
  std::map<KeyId, Doubt> doubts_;
  std::set<KeyId> partial_;     // some of whose elements are rejected
  bool is_followed_ = false;    // live sync is under way
  bool is_behind_ = false;      // and did not get to what was read in time
  bool is_extra_known_ = true;  // it got to the end of the second reading
  std::optional<Writes> writes_before_;
};

}  // namespace prm
