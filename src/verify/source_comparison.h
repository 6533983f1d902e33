// Compares what a source, or a part of it, has with the tables of a migration.
//
// Reads it once, as a run does. Keys whose rows are not equal are read again, by name, until their value
// holds still: the application, a run or live sync may be writing.
#pragma once

#include "core/siphash.h"
#include "store/batch.h"
#include "verify/live_beside.h"
#include "verify/verification_record.h"

namespace prm {

class SourceComparison {
 public:
  // So many readings of a key that cannot be watched, or of all keys, prove with live sync what one of them
  // may only suggest.
  static constexpr int kReadings = 3;

  // What becomes of a part whose reader has ended.
  static constexpr char kTakesOver[] = "This process reads the part again.";

  // Its arguments must outlive it.
  SourceComparison(const Migration &migration, const Routing &routing,
                   const VerificationRecord::Parameters &parameters, VerificationRecord &record);

  // Whether live sync is under way.
  void SetFollowed(bool is_followed) { is_followed_ = is_followed; }
  LiveBeside &live() { return live_; }

  // Compares all of the source, and adds to the findings. restarted: called when it has begun again. Commits
  // after each batch. Errors: those of the source and of BatchStore::Process.
  void Compare(const std::function<void()> &restarted);
  // Compares a part of it, beside others that compare the other parts, and saves the findings in the
  // transaction that is open at the end. first: what cannot be reached now is an error. between: called after
  // each batch, in its transaction. Likewise; and errors of `between`.
  void ComparePart(const PartTable::Part &part, const SourcePart &share, bool first,
                   const std::function<void()> &between);
  // Reads the source again, only for the rows that keys yield now. Commits. The same errors.
  void NoteMet();

  VerificationRecord::Findings &findings() { return findings_; }
  // Forgets the findings.
  void Clear();
  // Adds a difference that is no row's of a key, but a key's or a row's without one, to those that are kept.
  void AddDifference(const source::Entry *entry, const RowDifference &difference);

 private:
  // What is read.
  struct Scope {
    std::optional<SourcePart> part;   // nothing: all of it
    std::string position;             // where the part begins
    bool first = true;                // what cannot be reached now is an error
    std::function<void()> restarted;  // called when it has begun again
  };
  // A key that has a row that is not equal.
  struct Doubt {
    Hash128 value;
    std::optional<int64_t> expires_at_ms;
    int readings = 0;  // of this value, in a row, each followed by a comparison that found a difference
    bool is_unwatched = false;  // it could not be watched, though it should have been
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

  void CompareScope(const Scope &scope);
  void ReadSource(const Scope &scope, bool counts);
  void Restart(const Scope &scope);
  void Take(source::Batch &batch, bool counts);
  // Compares entries; those that are not equal are returned, and all others counted.
  BatchComparison CompareEntries(const std::vector<source::Entry> &entries, bool describes, bool counts);
  void AddMetInTry(const Mapping &mapping, std::vector<PackedItem> rows);
  void Count(const source::Entry &entry, BatchComparison::OfKey &found);
  void SettleDoubts();
  void TakeAgain(std::vector<source::Entry> &entries, const std::optional<redis::ReplicationPoint> &point,
                 int round);
  void CommitBatch();
  void CountUnsettled();

  const Migration &migration_;
  const Routing &routing_;
  const VerificationRecord::Parameters &parameters_;
  VerificationRecord &record_;
  BatchStore store_;
  SampleFilter filter_;
  KeyReader reader_;
  LiveBeside live_;
  bool has_server_;
  VerificationRecord::Findings findings_;
  std::map<KeyId, Doubt> doubts_;
  std::set<KeyId> partial_;  // of doubts_, those some of whose elements are rejected
  std::function<void()> between_;
  bool is_followed_ = false;
  bool is_behind_ = false;  // live sync did not get to what was read in time
};

}  // namespace prm
