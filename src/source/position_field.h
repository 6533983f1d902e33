// The fields of a position that is stored as text.
#pragma once

#include <algorithm>

#include "core/bytes.h"

namespace prm::source {

// Takes "name=value" from the front of the text, up to the next space or the end. False: another name stands
// there.
inline bool TakeField(Bytes& text, Bytes name, Bytes& value) {
  if (text.substr(0, name.size()) != name) return false;
  text.remove_prefix(name.size());
  const size_t end = std::min(text.find(' '), text.size());
  value = text.substr(0, end);
  text.remove_prefix(end);
  return true;
}

}  // namespace prm::source
