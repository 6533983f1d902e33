// Just enough JSON to read what fixtures say about themselves: objects may lack their outer braces and
// commas, strings are bytes (\u00ff is one), numbers and words are strings, too.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace prm::test {

struct Json {
  enum Kind { kText, kArray, kObject } kind = kText;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;
};

// The members of an object, with or without braces, or the items of an array. Throws std::runtime_error.
Json ParseJson(Bytes text);

}  // namespace prm::test
