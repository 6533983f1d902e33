// Names of relations, columns and types that are stored and compared.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// While it lives, names are quoted only where they must be, whatever quote_all_identifiers says: the text of
// a name is the same in all sessions.
class PlainNames {
 public:
  PlainNames() = default;
  ~PlainNames() { quote_all_identifiers = before_; }
  PlainNames(const PlainNames &) = delete;
  PlainNames &operator=(const PlainNames &) = delete;

 private:
  bool const before_ = std::exchange(quote_all_identifiers, false);
};

}  // namespace prm::pg
