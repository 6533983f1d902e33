// Bytes as text for messages.
#pragma once

#include <cstddef>
#include <string>

#include "core/bytes.h"

namespace prm {

// The bytes as printable ASCII, which every encoding can show: bytes outside space to tilde appear as \xNN, a
// backslash as two. Only the first `limit` bytes are shown, followed by "..." if there are more.
std::string Printable(Bytes bytes, size_t limit = 200);

}  // namespace prm
