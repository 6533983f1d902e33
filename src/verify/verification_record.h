// Verifications as the extension's tables keep them.
#pragma once

#include "core/packed_items.h"
#include "parts/part_table.h"
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
    int64 max_differences = 100;  // rows that are kept of each mapping
  };
  // Begins a verification, and forgets the rows that interrupted ones of the migration have met.
  explicit VerificationRecord(const Parameters &parameters);
  // For a process that takes part in a verification: the parameters are those that it began with, and
  // is_followed whether live sync was under way. Errors: 42704 also for a verification of somebody else,
  // 55000 when it is not in progress.
  static VerificationRecord Join(int64 id, Parameters *parameters, bool *is_followed);

  int64 id() const { return id_; }
  PartTable parts() const { return PartTable::OfVerification(id_); }

  // Notes, for those who take part, whether live sync is under way.
  void SetFollowed(bool is_followed) const;
  // Makes everything saved from now on belong to the part with this number; 0: to no part.
  void SetPart(int number) { part_ = number; }

  struct Keys {
    int64 estimated = -1;  // -1: unknown
    int64 read = 0;
    int64 read_again = 0;
    int64 unwatched = 0;  // that were in doubt, and could not be watched beside live sync
    int64 rejected = 0;
  };
  // Errors: 55000 when this process does not read the part any more. What it has found was not committed
  // then.
  void Save(const Keys &keys) const;
  // Adds up the keys of all parts, and notes that the process that leads is there.
  void Touch(int64 estimated) const;

  // The hashes of rows that keys yield; or, of suspects, of versions of rows that no key has yielded so far.
  void AddMet(int64 mapping_id, std::vector<PackedItem> rows, bool suspects = false) const;
  // Hands them over, in no order.
  void VisitMet(int64 mapping_id, bool suspects, const std::function<void(const PackedItem &)> &visit) const;
  void ForgetMet() const;
  // Forgets what was found, in the part, because it is read from its beginning.
  void Restart() const;
  // Notes that the part begins again, because the server was restarted: other parts may have been read
  // before.
  void NoteRestart() const;
  // Forgets the parts with what was found in them, because the source no longer has them.
  void DropParts();

  // entry: none if the key is not known. number: of the row among those that are kept of its mapping.
  void AddDifference(const source::Entry *entry, const RowDifference &difference, int64 number) const;

  struct Counts {
    ComparedRows rows;
    std::optional<int64> extra;  // none: not looked for
    int64 unsettled = 0;         // keys
    int64 kept = 0;              // rows that have differences in the table
    int64 not_kept = 0;

    void Add(const Counts &other);
  };
  struct Findings {
    Keys keys;
    std::map<std::string, Counts> counts;  // by mapping
    std::map<std::string, int64> rules;    // of keys that were rejected
    int64 restarts = 0;                    // of parts, because the server was restarted

    void Add(const Findings &other);
  };
  // In the part, which is read.
  void SaveFindings(const Findings &findings) const;
  // In all parts. Of each mapping no more rows stay than are to be kept; the others are in `not_kept`.
  Findings TakeFindings(int64 max_differences) const;

  // Whether a run of the migration wrote rows since the verification began, or may still do so.
  bool HasMetRun() const;
  // Whether the definition of the migration was changed since, or is gone. Not for those who take part.
  bool IsOutdated() const;
  // Whether the state of one of its families was. Likewise.
  bool HasFamilyChanged() const;

  void Conclude(const std::vector<std::string> &reasons, bool proves) const;
  void Fail(const std::string &sqlstate, const std::string &message) const;

 private:
  // What tells that something has changed, also if the clock was set back.
  struct Versions {
    std::optional<TimestampTz> definition;  // nothing: it is gone
    int64 families = 0;
  };

  VerificationRecord() = default;
  Versions ReadVersions() const;

  std::string migration_;
  int64 id_ = 0;
  int part_ = 0;
  Versions begun_with_;
};

}  // namespace prm
