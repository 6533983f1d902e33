// What the text of an error of Redis says.
#pragma once

#include "core/bytes.h"

namespace prm::redis {

// What our code knows errors by, beside their first words. A message shows these words even if a password has
// them, too: with that masked we would not know what Redis said.
constexpr Bytes kError = "ERR ";
constexpr Bytes kUnknown = "ERR unknown";
constexpr Bytes kWithoutMulti = "without MULTI";
constexpr Bytes kNoKeyArguments = "no key arguments";
constexpr Bytes kNoCluster = "cluster support disabled";
constexpr Bytes kOnKey = " key";         // the command is permitted, but not on this key
constexpr Bytes kToAccess = " access ";  // likewise

// Its first word, such as NOPERM.
inline Bytes KindOf(Bytes words) { return words.substr(0, words.find(' ')); }

// The words that tell what was wrong. Of an EXEC that was itself refused those of the cause: "EXECABORT
// Transaction discarded because of: NOPERM this user has ...".
inline Bytes CauseOf(Bytes words) {
  constexpr Bytes kBecause = "because of: ";
  while (KindOf(words) == "EXECABORT") {
    const size_t because = words.find(kBecause);
    if (because == Bytes::npos) break;
    words.remove_prefix(because + kBecause.size());
  }
  return words;
}

}  // namespace prm::redis
