// The name of a key: its database and its bytes.
#pragma once

#include <string>
#include <utility>

namespace prm {

using KeyId = std::pair<int, std::string>;

}  // namespace prm
