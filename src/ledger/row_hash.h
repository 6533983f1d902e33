// The hashes by which a packed ledger knows a row, of its key columns, and what was stored in it, of the
// other columns of its mapping. They are made with a secret of the installation, so that whoever chooses keys
// cannot make two rows look the same.
#pragma once

#include "core/siphash.h"
#include "mapping/target.h"
#include "pg/pg.h"

namespace prm {

// The stored value is hashed, after TOAST. So hashes are equal after a dump and restore, and on other
// machines. Integers of any width hash alike, and so do text and varchar; enums by their labels, arrays and
// composites by what is in them. Of these types the bytes depend on more than the value: numeric, jsonb and
// floating-point numbers inside of other types on the byte order of the machine, reg* types, oid and ranges
// of types that are not PostgreSQL's own on OIDs, which a restored database numbers anew.
class RowHasher {
 public:
  // Reads the secret. Needs SPI. Errors: 55000 when there is none.
  RowHasher();

  // Forgets what was added to a hash that an error kept from being finished.
  void Clear() { bytes_.clear(); }

  // Adds a value of a type. Errors: 53200, and those of reading it from TOAST.
  void Add(Oid type, Datum value, bool null);
  // Adds what a text or bytea of these bytes is.
  void AddBytes(Bytes bytes);
  // Adds the fields of a composite value.
  void AddFields(Datum composite);

  // The hash of what was added, and a new beginning.
  Hash128 Finish();
  // The hash as the image of a row, which is never 0.
  uint64 FinishImage();

 private:
  enum class Kind : char { kInteger, kEnum, kVarlena, kCString, kFixed, kArray, kComposite };
  struct Image {
    Kind kind;
    int16 length;
  };
  const Image &ImageOf(Oid type);
  void AppendBytes(Bytes bytes);
  void AddArray(Datum array);

  SipKey secret_;
  std::map<Oid, Image> images_;
  std::string bytes_;
};

// "row_hash(alias.a, …)" of the key columns of a target.
std::string RowHashExpression(const Target &target, const std::string &alias);

}  // namespace prm
