// Keys and values are bytes: no encoding is assumed and zero bytes are ordinary.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace prm {

using Bytes = std::string_view;

// The length of the prefix that both have in common.
inline size_t CommonBytes(Bytes a, Bytes b) {
  const Bytes shorter = a.substr(0, b.size());
  return static_cast<size_t>(std::mismatch(shorter.begin(), shorter.end(), b.begin()).first -
                             shorter.begin());
}

}  // namespace prm
