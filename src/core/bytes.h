// Keys and values are bytes: no encoding is assumed and zero bytes are ordinary.
#pragma once

#include <string>
#include <string_view>

namespace prm {

using Bytes = std::string_view;

}  // namespace prm
