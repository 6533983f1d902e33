// The full ledger: the key from which each row came. A row belongs to the lowest (database, key) that yields
// it, so that all runs decide alike. Only that key may change the row, and the row goes when the key no
// longer yields it.
#pragma once

#include "core/bytes.h"
#include "core/hash_filter.h"
#include "ledger/departure.h"
#include "ledger/row_hash.h"
#include "mapping/catalog.h"
#include "mapping/target.h"
#include "mapping/target_statements.h"
#include "pg/identity.h"
#include "pg/kept_statement.h"
#include "pg/tuplestore.h"
#include "source/entry.h"
#include "write/journal.h"
#include "write/row_counts.h"

namespace prm {

// A row's identity: its key columns as the text of a text[], of a row that is stored as they are there, and
// the hash under which the ledger has it.
struct IdentifiedRow {
  int row;
  std::string row_key;
  int64 hash;
};

struct KeyName {
  int db;
  Bytes key;
  bool operator<(const KeyName &other) const { return db != other.db ? db < other.db : key < other.key; }
};

// Sets, for a scope, what the text of a row's identity depends on. It must be the same in all sessions, or
// rows would look new, and what was stored before obsolete.
class CanonicalText : public pg::LocalSettings {
 public:
  CanonicalText();
};

using KeyOfRow = std::function<KeyName(int)>;

class Ledger {
 public:
  // expires: columns of the target that hold when rows expire; at least one if the mapping has an on_expire.
  Ledger(const Mapping &mapping, const Target &target, std::vector<std::string> expires = {});

  // A key, the number of its entry in the batch, and when it became what it is now.
  struct Changed {
    int entry;
    KeyName key;
    source::TimeSpan time;
  };

  // Whether the ledgers of these mappings, of both kinds, have no entries; false also if finding out would
  // take long.
  static bool AreEmpty(const std::vector<const Mapping *> &mappings);

  // The hashes of all entries of this and other mappings, and maybe more: only what may be among them is
  // looked up, and what is recorded is added. None: everything is looked up.
  void set_recorded(HashFilter *recorded) { recorded_ = recorded; }

  // Adds the identities of redis_rows to `identities`, in the order of the rows, with the rights and settings
  // of the caller.
  void Identify(pg::Tuplestore &identities);

  // Whether rows of redis_rows may have the same identity. Goes back to the first identity.
  bool MayFold(pg::Tuplestore &identities);

  // Strikes off the rows that the keys own but no longer yield themselves, and adds them to `obsolete`.
  void TakeObsolete(const std::vector<Changed> &keys, pg::Tuplestore &identities, pg::Tuplestore &obsolete);

  // Returns the next `count` identities, in the order of their hashes. Identify and TakeObsolete go back to
  // the first.
  std::vector<IdentifiedRow> Next(pg::Tuplestore &identities, size_t count);

  // Returns those of `rows` that belong to a lower key than the one that yields them now, and are in the
  // target, where that can be looked up. `key_of_row` takes the number of a row.
  std::vector<int> FindLost(const std::vector<IdentifiedRow> &rows, const KeyOfRow &key_of_row);

  // Whether FindLost saw that the row belongs to its key already.
  bool IsRecorded(int row) const { return OwnerOf(row) == Owner::kSelf; }

  // Records the owners of those rows that FindLost found to be new, or to change hands.
  void Record(const std::vector<IdentifiedRow> &rows, const KeyOfRow &key_of_row);

  // Deletes obsolete rows from the target, or changes them as on_delete and on_expire say. Rows that are
  // equal to one of `identities` stay, even if their text differs, as that of 1.0 and 1.00.
  void DeleteRows(pg::Tuplestore &obsolete, pg::Tuplestore &identities, RowCounts &counts);
  // As above, for identities whose keys are gone now, which `hand_over` hands over one by one.
  using TakeRowKey = std::function<void(Bytes)>;
  void DeleteRows(const std::function<void(const TakeRowKey &)> &hand_over, RowCounts &counts);

  // Keeps the earlier images of rows that are deleted or changed. It must outlive the ledger.
  void set_journal(Journal *journal) { journal_ = journal; }

  // "ARRAY[alias.a::text, …]::text"
  std::string RowKeyExpression(const std::string &alias) const;
  // "alias.a = CAST(row_key[1] AS type) AND …", where row_key is an expression of type text[].
  std::string HasIdentity(const std::string &alias, const std::string &row_key) const;
  // "CAST(row_key[1] AS type), …": the values of the key columns in an identity.
  std::string KeyValues(const std::string &row_key) const;

  // Strikes off rows that are no longer in the target.
  void StrikeOff(const std::vector<std::string> &row_keys);

 private:
  enum class Owner : char { kNobody, kOther, kSelf };

  // Entries that are to be recorded, as columns.
  struct Entries {
    std::vector<int64> row_hashes, key_hashes;
    std::vector<std::string> row_keys;
    std::vector<int> dbs;
    std::vector<Bytes> keys;
  };
  bool InsertInBulk(const Entries &entries) const;

  Owner OwnerOf(int row) const {
    size_t const at = static_cast<size_t>(row - first_);
    return row < first_ || at >= owners_.size() ? Owner::kNobody : owners_[at];
  }
  bool MayBeRecorded(int64 hash) const {
    return recorded_ == nullptr || recorded_->MayHold(static_cast<uint64>(hash));
  }
  int64 HashOfRow(Bytes row_key);
  int64 HashOfKey(const KeyName &key);
  std::string KeyValue(size_t i, const std::string &row_key) const;
  std::vector<int> WithRows(const std::vector<const IdentifiedRow *> &rows);
  DepartedRows Obsolete(const std::string &condition) const;
  std::string DeleteRowsStatement(const DepartedRows &rows) const;

  void InJournal(const DepartedRows &rows, pg::KeptStatement::Planning planning,
                 const std::function<void()> &change);
  void CountDeleted(const pg::Rows &result, RowCounts &counts) const;

  const Mapping &mapping_;
  int64 mapping_id_;
  std::string target_;
  std::vector<std::string> expires_;
  std::vector<KeyColumn> keys_;
  bool asks_for_first_key_;
  bool has_equal_images_;  // equal identities have equal texts
  pg::KeptStatement::Planning planning_;
  pg::KeptStatement identify_, find_owned_, find_obsolete_, strike_off_, delete_all_;
  std::optional<pg::KeptStatement> find_stored_;  // of a target with indexes of its own
  Journal *journal_ = nullptr;
  HashFilter *recorded_ = nullptr;
  std::optional<RowHasher> hasher_;
  // The keys that FindLost found in the ledger for its rows, from that number on.
  int first_ = 0;
  std::vector<Owner> owners_;
};

}  // namespace prm
