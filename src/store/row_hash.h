// The hash by which a packed ledger knows a row: of the values of its key columns, with a secret of the
// installation, so that whoever chooses keys cannot make two rows look the same.
#pragma once

#include "core/siphash.h"
#include "pg/pg.h"

namespace prm {

// Values of an integer type of any width hash alike, and so do text and varchar; an enum by its label, as its
// number is another one in a restored database.
class RowHasher {
 public:
  // Reads the secret; the first in a database draws it. Needs SPI.
  RowHasher();

  // Adds a value of a type. Errors: 53200, and those of reading it from TOAST.
  void Add(Oid type, Datum value, bool null);
  // Adds what a text or bytea of these bytes is.
  void AddBytes(Bytes bytes);
  // The hash of what was added, and a new beginning.
  Hash128 Finish();

 private:
  struct Image {
    int16 length;
    bool by_value;
    bool is_enum;
  };
  const Image &ImageOf(Oid type);

  SipKey secret_;
  std::map<Oid, Image> images_;
  std::string bytes_;
};

}  // namespace prm
