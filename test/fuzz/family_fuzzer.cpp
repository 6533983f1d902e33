// Input: keys, separated by line feeds. However odd they are, each is counted once, every pattern is one that
// add_mapping takes, and the examples fit it.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "discover/family.h"
#include "discover/framework_layout.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const prm::Bytes input(reinterpret_cast<const char*>(data), size);
  prm::FamilyTree tree;
  uint64_t keys = 0;
  for (size_t at = 0; at <= input.size(); ++keys) {
    const size_t end = std::min(input.find('\n', at), input.size());
    const prm::Bytes key = input.substr(at, end - at);
    prm::KeyFacts facts;
    facts.type = "string";
    facts.kind = prm::DetectValueKind(key, (keys & 1) == 0);
    tree.Find(key);
    tree.Add(key, keys % 3 == 0 ? nullptr : &facts);
    at = end + 1;
  }
  tree.Finish();
  uint64_t counted = 0;
  std::set<std::string> patterns;
  prm::Match match;
  for (const prm::Family& family : prm::FindFamilies(tree)) {
    counted += family.stats.keys;
    const std::string& text = family.pattern.text();
    Require(patterns.insert(text).second);
    Require(prm::KeyPattern::Parse(text).ok());
    for (const std::string& example : family.stats.examples) {
      Require(family.pattern.MatchKey(example, match) == prm::Fit::kFits);
      prm::MaskKey(family.pattern, example);
    }
    prm::FindFrameworkLayout(family.stats);
  }
  Require(counted == keys);
  return 0;
}
