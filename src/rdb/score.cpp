#include "rdb/score.h"

#include <charconv>
#include <cmath>

namespace prm::rdb {

bool ParseScore(Bytes text, double& score) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), score);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && !std::isnan(score);
}

}  // namespace prm::rdb
