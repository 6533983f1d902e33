// The gate for all text from a peer that goes into messages, the log, views and tables.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace prm {

class TextGate {
 public:
  TextGate() = default;  // knows no secret

  // secrets: passwords; empty ones are left out.
  explicit TextGate(const std::vector<std::string>& secrets);

  // The first `limit` bytes of the text as Printable shows them: ASCII, one line. "***" replaces text that
  // occurs in a secret: four or more characters in a row, in either case, also quoted or escaped, and the
  // whole of a shorter secret.
  std::string Pass(Bytes text, size_t limit = 200) const { return Pass(text, limit, {}); }

  // As above, but what lies wholly within one of these words is shown: a peer says them in any case, and our
  // code goes by them.
  std::string Pass(Bytes text, size_t limit, std::initializer_list<Bytes> words) const;

  // Whether a whole secret of at least eight characters occurs in the text: for names that must not be
  // changed, such as the id of a server.
  bool Quotes(Bytes text) const;

 private:
  std::vector<std::string> secrets_;  // in lower case, each also without its quotes and backslashes
};

}  // namespace prm
