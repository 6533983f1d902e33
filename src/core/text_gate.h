// The one way of text from a peer into messages, the log, views and tables.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace prm {

class TextGate {
 public:
  TextGate() = default;  // knows no secret

  // secrets: passwords; empty ones are left out.
  explicit TextGate(const std::vector<std::string>& secrets);

  // The first `limit` bytes of the text as Printable shows them: ASCII, one line. "***" stands for what
  // occurs in a secret as well: any four characters or more in a row, in either case, also where the text has
  // them quoted or escaped, and all of a secret that is shorter.
  std::string Pass(Bytes text, size_t limit = 200) const;

  // Whether a whole secret of at least eight characters occurs in the text: for names that have to stay as
  // they are, such as the id of a server.
  bool Quotes(Bytes text) const;

 private:
  std::vector<std::string> secrets_;  // in lower case, each also without its quotes and backslashes
};

}  // namespace prm
