// Tells ids that a program drew at random from words that people chose.
#pragma once

#include "core/bytes.h"

namespace prm {

// Whether text of a key is rather random letters and digits (a session id, nanoid, ULID, base64) than words,
// abbreviations and numbers. It compares how likely each is: letters by the pairs that words have, and
// changes between cases, digits and marks, which words have few of. Measured: 1 of 1,000 nanoids, 2 of
// 1,000 words and names of libraries with ten letters or more are taken for the other.
bool LooksRandom(Bytes text);

// Whether text is one word: letters of one case, perhaps with a capital first, that do not look random.
bool IsPlainWord(Bytes text);

}  // namespace prm
