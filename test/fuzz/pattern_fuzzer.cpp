// Input: a pattern, a zero byte, a key. When the key fits, putting the captured values where the captures
// stand in the pattern gives the key back.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/pattern.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

// The pattern's text with values in place of captures; the pattern has no stars.
std::string Assemble(const std::string& text, const std::vector<prm::Bytes>& values) {
  std::string key;
  size_t next = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') {
      key += values[next++];
      i = text.find('}', i);
    } else {
      if (text[i] == '\\') ++i;
      key += text[i];
    }
  }
  Require(next == values.size());
  return key;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const prm::Bytes input(reinterpret_cast<const char*>(data), size);
  const size_t separator = std::min(input.find('\0'), input.size());
  const prm::Bytes key = input.substr(std::min(separator + 1, input.size()));
  const auto parsed = prm::KeyPattern::Parse(input.substr(0, separator));
  if (!parsed.ok()) return 0;
  const prm::KeyPattern& pattern = parsed.value();

  prm::Match match;
  const prm::Fit fit = pattern.MatchKey(key, match);
  if (fit == prm::Fit::kNone) return 0;
  Require(match.values.size() == pattern.captures().size());
  const auto fits = [&](size_t i) { return prm::FitsType(pattern.captures()[i].type, match.values[i]); };
  const size_t fitting = fit == prm::Fit::kFits ? match.values.size() : match.misfit;
  for (size_t i = 0; i < fitting; ++i) Require(fits(i));
  if (fit == prm::Fit::kMisfit) Require(!fits(fitting));
  if (!pattern.has_star()) Require(Assemble(pattern.text(), match.values) == key);
  Require(pattern.Overlaps(pattern));
  return 0;
}
