// The hashes of a packed ledger: of a row's key columns, by which it knows the row, and of the other columns
// of its mapping, by which it knows what was stored. They are made with a secret of the installation, so that
// nobody can choose keys that make two rows look the same.
#pragma once

#include "core/sip_hasher.h"
#include "mapping/target.h"
#include "pg/pg.h"

namespace prm {

// Hashes cover the stored value, detoasted, so that they are equal after a dump and restore, and on other
// machines. Integers of all widths hash alike, and so do text and varchar. Enums are hashed by their labels,
// arrays and composites by their contents. The bytes of some types depend on more than the value: those of
// numeric, of jsonb and of floating-point numbers inside other types on the byte order of the machine; those
// of reg* types, oid and ranges of types that are not PostgreSQL's own on OIDs, which change with a restore.
class RowHasher {
 public:
  // Reads the secret. Needs SPI. Errors: 55000 when there is none.
  RowHasher();

  // Forgets what was added before an error.
  void Clear() { hasher_.Clear(); }

  // Adds a value of a type. Errors: 53200, and those of reading it from TOAST.
  void Add(Oid type, Datum value, bool null);
  // Adds these bytes as a text or bytea.
  void AddBytes(Bytes bytes);
  // Adds the fields of a composite value.
  void AddFields(Datum composite);

  // Returns the hash of what was added, and begins a new one.
  Hash128 Finish();
  // As Finish, as the image of a row, which is never 0.
  uint64 FinishImage();

 private:
  enum class Kind : char { kInteger, kEnum, kVarlena, kCString, kFixed, kArray, kComposite };
  struct Image {
    Kind kind;
    int16 length;
  };
  Image ImageOf(Oid type);
  void AppendMark(bool is_null);
  void AppendWord(int64 word);
  void AppendBytes(Bytes bytes);
  void AddArray(Datum array);

  SipHasher hasher_;
  std::vector<std::pair<Oid, Image>> images_;  // of the few types met
};

// "row_hash(alias.a, …)" of the key columns of a target.
std::string RowHashExpression(const Target &target, const std::string &alias);

}  // namespace prm
