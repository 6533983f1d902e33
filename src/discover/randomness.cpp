#include "discover/randomness.h"

#include <algorithm>
#include <cmath>

#include "discover/letters.h"

namespace prm {
namespace {

int LetterNumber(char c) { return IsUpper(c) ? c - 'A' : c - 'a'; }

// −log2 of the probability that one letter follows another in the words of English manuals, a row for each
// first letter.
constexpr const char* kPairBits[26] = {
    "95449759597343959343566869", "36553667468365459546477557", "38583793594478279463589979",
    "47852868287677469447577979", "57436669799553857334867579", "53675599199599489664699979",
    "47572954397464568347589987", "29762698399767379454599968", "55445559798452359544859796",
    "48771888688888358648286888", "47771557388556779637487979", "36852799399389379855589949",
    "25872999399757439948598969", "48433538497686579832669979", "66458669686442549345455879",
    "39673985497387349254489979", "88746688788377868866188888", "38552669396756379544668959",
    "59472874396677547742487969", "38562674299678479445587859", "54554669599443749333899899",
    "29871899299758469766999999", "39563964397574379448887999", "48454279499668739562799867",
    "67674788499544529524986967", "38681886488867388848588866",
};

// Bits per byte of words: log2 of 26 and of 10; rare bytes cost more.
constexpr double kLetterBits = 4.7;
constexpr double kDigitBits = 3.3;
constexpr double kChangeBits = 5;  // of case, to a mark, or back from digits to letters
constexpr double kDigitsBeginBits = 4;
constexpr double kCapitalBits = 2;
// Random text must be 16 times as likely.
constexpr double kEvidenceBits = 4;
constexpr size_t kLeastRandom = 8;
constexpr size_t kLeastRandomMixed = 6;

}  // namespace

bool LooksRandom(Bytes text) {
  if (text.size() < kLeastRandomMixed) return false;
  bool lower = false, upper = false, digit = false, mark = false, digit_inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    lower = lower || IsLower(text[i]);
    upper = upper || IsUpper(text[i]);
    digit = digit || IsDigit(text[i]);
    mark = mark || !(IsLetter(text[i]) || IsDigit(text[i]));
    digit_inside = digit_inside || (i > 0 && IsLetter(text[i]) && IsDigit(text[i - 1]));
  }
  if (text.size() < kLeastRandom && !digit_inside) return false;
  double bits = 0;
  size_t capitals = 0;  // in a row
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char before = i > 0 ? text[i - 1] : '\0';
    if (IsDigit(c)) {
      bits += kDigitBits + (IsDigit(before) ? 0 : kDigitsBeginBits);
    } else if (!IsLetter(c)) {
      bits += kChangeBits;
    } else if (IsDigit(before)) {
      bits += kLetterBits + kChangeBits;
    } else if (!IsLetter(before)) {
      bits += kLetterBits;
    } else if ((IsUpper(c) && IsLower(before)) || (IsLower(c) && capitals > 1)) {
      bits += kLetterBits + kChangeBits;
    } else {
      bits += kPairBits[LetterNumber(before)][LetterNumber(c)] - '0';
      if (IsUpper(c) && lower) bits += kCapitalBits;
    }
    capitals = IsUpper(c) ? capitals + 1 : 0;
  }
  const double alphabet = (lower ? 26 : 0) + (upper ? 26 : 0) + (digit ? 10 : 0) + (mark ? 2 : 0);
  return bits - static_cast<double>(text.size()) * std::log2(std::max(alphabet, 2.0)) > kEvidenceBits;
}

bool IsPlainWord(Bytes text) {
  if (text.size() < 3 || !std::all_of(text.begin(), text.end(), IsLetter)) return false;
  const Bytes rest = text.substr(1);
  const bool one_case = std::all_of(rest.begin(), rest.end(), IsLower) ||
                        (IsUpper(text[0]) && std::all_of(rest.begin(), rest.end(), IsUpper));
  return one_case && !LooksRandom(text);
}

}  // namespace prm
