// Verifications as the extension's tables keep them.
#pragma once

#include "core/packed_items.h"
#include "source/entry.h"
#include "store/comparison.h"

namespace prm {

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class VerificationRecord {
 public:
  struct Parameters {
    std::string migration;
    std::string source;
    std::optional<std::string> mapping;
    std::optional<double> sample;
  };
  // Begins a verification, and forgets the rows that interrupted ones of the migration have met.
  explicit VerificationRecord(const Parameters &parameters);

  int64 id() const { return id_; }

  struct Keys {
    int64 estimated = -1;  // -1: unknown
    int64 read = 0;
    int64 read_again = 0;
    int64 rejected = 0;
  };
  void Save(const Keys &keys) const;

  // The hashes of rows that keys yield; or, of suspects, of versions of rows that no key has yielded so far.
  void AddMet(int64 mapping_id, std::vector<PackedItem> rows, bool suspects = false) const;
  // Hands them over, in no order.
  void VisitMet(int64 mapping_id, bool suspects, const std::function<void(const PackedItem &)> &visit) const;
  void ForgetMet() const;
  // Forgets all findings, because the source begins again.
  void Restart() const;

  // entry: none if the key is not known.
  void AddDifference(const source::Entry *entry, const RowDifference &difference) const;

  struct Counts {
    ComparedRows rows;
    std::optional<int64> extra;  // none: not looked for
    int64 unsettled = 0;         // keys
    int64 kept = 0;              // rows that have differences in the table
    int64 not_kept = 0;
  };
  void SaveCounts(const std::string &mapping, const Counts &counts) const;

  // Whether a run of the migration wrote rows since the verification began, or may still do so.
  bool HasMetRun() const;
  // Whether the definition of the migration was changed since.
  bool IsOutdated() const;
  // Whether the state of one of its families was.
  bool HasFamilyChanged() const;

  void Conclude(const std::vector<std::string> &reasons, bool proves) const;
  void Fail(const std::string &sqlstate, const std::string &message) const;

 private:
  std::string migration_;
  int64 id_ = 0;
};

}  // namespace prm
