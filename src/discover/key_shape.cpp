#include "discover/key_shape.h"

#include <algorithm>
#include <array>

#include "core/capture_type.h"
#include "discover/letters.h"
#include "discover/randomness.h"

namespace prm {
namespace {

constexpr size_t kLeastHash = 8;
constexpr size_t kLeastToken = 16;
constexpr size_t kLeastGluedHash = 24;
constexpr size_t kMostIntDigits = 18;
constexpr Bytes kSeparators = ":/|#=&?,; @[]{}()<>\"'";

bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Bytes of words; those above 127 are parts of letters of other scripts.
bool IsWordByte(char c) { return IsLetter(c) || IsDigit(c) || static_cast<unsigned char>(c) >= 0x80; }

// The length of the UTF-8 sequence at `at` (RFC 3629); 0 for control bytes and invalid sequences.
size_t CharacterLength(Bytes text, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(at + i < text.size() ? text[at + i] : 0);
  };
  const auto follows = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f)) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if ((first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

class ShapeFinder {
 public:
  ShapeFinder(Bytes key, KeyShape& shape) : whole_(key), key_(key.substr(0, kMaxShapeBytes)), shape_(shape) {
    stop_separates_ = key_.find_first_of(":/|@") == Bytes::npos;
  }

  void Run() {
    shape_.pieces.clear();
    shape_.segments.clear();
    size_t at = 0;
    for (;;) {
      if (shape_.segments.size() + 1 == kMaxShapeSegments || shape_.pieces.size() + 8 > kMaxShapePieces) {
        TakeRest(at);
        return;
      }
      BeginSegment();
      at = TakeSegment(at);
      if (at == key_.size()) break;
      shape_.segments.back().separator = key_[at];
      shape_.segments.back().has_separator = true;
      ++at;
    }
    if (whole_.size() > key_.size()) CutLastSegment();
  }

 private:
  void BeginSegment() { shape_.segments.push_back({shape_.pieces.size(), 0, 0, false}); }

  void Add(PieceClass what, size_t begin, size_t end) {
    if (begin == end) return;
    shape_.pieces.push_back({what, whole_.substr(begin, end - begin)});
    ++shape_.segments.back().pieces;
  }

  void TakeRest(size_t at) {
    BeginSegment();
    Add(PieceClass::kText, at, whole_.size());
  }

  // Only the beginning of a truncated key's last segment is known.
  void CutLastSegment() {
    Segment& last = shape_.segments.back();
    const size_t begin =
        last.pieces == 0 ? key_.size()
                         : static_cast<size_t>(shape_.pieces[last.first_piece].text.data() - whole_.data());
    shape_.pieces.resize(last.first_piece);
    last.pieces = 0;
    Add(PieceClass::kText, begin, whole_.size());
  }

  bool IsSeparator(char c) const {
    return kSeparators.find(c) != Bytes::npos || (c == '.' && stop_separates_);
  }
  bool EndsSegment(size_t at) const { return at == key_.size() || IsSeparator(key_[at]); }
  bool EndsPiece(size_t at) const { return at == key_.size() || !IsWordByte(key_[at]); }
  Bytes Rest(size_t at) const { return key_.substr(at); }

  // Adds pieces from `at` to the end of the segment, and returns that end.
  size_t TakeSegment(size_t at) {
    if (const size_t end = FindWide(at); end != at) return end;
    size_t literal = at;  // where the current literal begins
    bool at_boundary = true;
    while (!EndsSegment(at)) {
      if (shape_.pieces.size() + 4 > kMaxShapePieces) break;
      if (at_boundary) {
        PieceClass what;
        if (const size_t length = FindPiece(at, what); length > 0) {
          Add(PieceClass::kLiteral, literal, at);
          Add(what, at, at + length);
          at += length;
          literal = at;
          at_boundary = false;
          continue;
        }
      }
      const size_t length = CharacterLength(key_, at);
      if (length == 0) {
        Add(PieceClass::kLiteral, literal, at);
        return TakeToSegmentEnd(PieceClass::kBinary, at);
      }
      at_boundary = !IsWordByte(key_[at]);
      at += length;
    }
    Add(PieceClass::kLiteral, literal, at);
    return TakeToSegmentEnd(PieceClass::kText, at);
  }

  size_t TakeToSegmentEnd(PieceClass what, size_t begin) {
    size_t end = begin;
    while (!EndsSegment(end)) ++end;
    Add(what, begin, end);
    return end;
  }

  // Values that take a whole segment and may contain separators: the end of the one at `at`, or `at`.
  size_t FindWide(size_t at) {
    if (IsUrl(at)) {
      Add(PieceClass::kUrl, at, whole_.size());
      return key_.size();
    }
    if (const size_t length = InetLength(at); length > 0 && EndsSegment(at + length)) {
      Add(PieceClass::kInet, at, at + length);
      return at + length;
    }
    if (const size_t length = EmailLength(at); length > 0) {
      Add(PieceClass::kEmail, at, at + length);
      return at + length;
    }
    size_t end = at;
    const size_t begin = FindToken(at, end);
    if (end == at) return at;
    Add(PieceClass::kLiteral, at, begin);
    Add(PieceClass::kToken, begin, end);
    return end;
  }

  bool IsUrl(size_t at) const {
    size_t i = at;
    while (i < key_.size() && i - at < 12 && (IsLower(key_[i]) || (i > at && key_[i] == '+'))) ++i;
    return i - at >= 2 && key_.compare(i, 3, "://") == 0;
  }

  // The length of the longest possible address that ends where a piece ends.
  size_t InetLength(size_t at) const {
    if (at == key_.size() || !(IsHexDigit(key_[at]) || key_[at] == ':')) return 0;
    PrefixLengths prefixes;
    FindPrefixes(CaptureType::kInet, Rest(at), prefixes);
    while (prefixes.count > 0) {
      const size_t length = prefixes.length[--prefixes.count];
      if (EndsPiece(at + length) && IsPlainAddress(at, length)) return length;
    }
    return 0;
  }

  // a::b only looks like an address.
  bool IsPlainAddress(size_t at, size_t length) const {
    const Bytes text = key_.substr(at, length);
    const auto colons = std::count(text.begin(), text.end(), ':');
    if (colons == 0) return at + length == key_.size() || key_[at + length] != '.';
    if (colons >= 3 || text == "::1") return true;
    return text.find(':') == 4 && text.size() > 6;
  }

  size_t EmailLength(size_t at) const {
    const size_t separator = key_.find_first_of(":/", at);
    const size_t sign = key_.find('@', at);
    if (sign == Bytes::npos || sign > separator) return 0;
    PrefixLengths prefixes;
    FindPrefixes(CaptureType::kEmail, Rest(at), prefixes);
    while (prefixes.count > 0) {
      const size_t length = prefixes.length[--prefixes.count];
      if (EndsSegment(at + length)) return length;
    }
    return 0;
  }

  static bool IsMark(char c) {
    return c == '-' || c == '_' || c == '+' || c == '=' || c == '.' || c == '~' || c == '%';
  }

  // Finds random letters and digits from `at`, or after the words there, to the end of the segment: returns
  // their beginning and sets `end`. Returns `at` and end == at if there are none.
  size_t FindToken(size_t at, size_t& end) {
    end = at;
    size_t last = at;
    while (last < key_.size() && (IsLetter(key_[last]) || IsDigit(key_[last]) || IsMark(key_[last]))) ++last;
    // Base64 may have slashes.
    if (const size_t length = Base64Length(at); at + length > last && EndsSegment(at + length)) {
      end = at + length;
      return at;
    }
    if (!EndsSegment(last)) return at;
    size_t begin = at;
    for (size_t i = at; i < last; ++i) {
      if (!IsMark(key_[i])) continue;
      // The first digits of a UUID may all be letters.
      if (TypeLength(CaptureType::kUuid, begin) > 0 || !IsPlainWord(key_.substr(begin, i - begin))) break;
      begin = i + 1;
    }
    const Bytes text = key_.substr(begin, last - begin);
    if (HasOnlyPieces(begin, last) || !(LooksRandom(text) || EndsWithHash(text))) return at;
    end = last;
    return begin;
  }

  // Whether there is a hash behind a word, with nothing between them.
  static bool EndsWithHash(Bytes text) {
    size_t begin = text.size(), digits = 0;
    for (; begin > 0 && (IsDigit(text[begin - 1]) || (text[begin - 1] >= 'a' && text[begin - 1] <= 'f'));
         --begin)
      digits += IsDigit(text[begin - 1]) ? 1 : 0;
    const size_t length = text.size() - begin;
    return begin > 0 && IsLetter(text[begin - 1]) && length >= kLeastGluedHash && digits >= length / 4 &&
           digits < length;
  }

  // Padded base64 with a slash, to the end of the key or the next colon.
  size_t Base64Length(size_t at) const {
    size_t lower = 0, upper = 0, digits = 0, slashes = 0, i = at;
    for (; i < key_.size(); ++i) {
      const char c = key_[i];
      if (IsLower(c)) {
        ++lower;
      } else if (IsUpper(c)) {
        ++upper;
      } else if (IsDigit(c)) {
        ++digits;
      } else if (c == '/') {
        ++slashes;
      } else if (c != '+' && c != '=') {
        break;
      }
    }
    const size_t length = i - at;
    const bool ends = i == key_.size() || key_[i] == ':';
    return ends && slashes > 0 && length >= kLeastToken && length % 4 == 0 && lower >= 4 && upper >= 4 &&
                   digits > 0 && LooksRandom(key_.substr(at, length))
               ? length
               : 0;
  }

  // Whether there are only words, numbers, hashes, dates and so on between marks, which are parsed one by
  // one.
  bool HasOnlyPieces(size_t at, size_t end) const {
    while (at < end) {
      PieceClass what;
      size_t length = FindPiece(at, what);
      if (length == 0) {
        size_t i = at;
        while (i < end && IsLetter(key_[i])) ++i;
        while (i < end && i - at < 12 && IsDigit(key_[i])) ++i;
        if (LooksRandom(key_.substr(at, i - at))) return false;
        length = i - at;
      }
      at += length;
      if (at < end && !IsMark(key_[at])) return false;
      ++at;
    }
    return true;
  }

  // The length of the value that begins at `at` and is delimited by bytes that are not part of words.
  size_t FindPiece(size_t at, PieceClass& what) const {
    const char c = key_[at];
    if (!IsHexDigit(c)) return 0;
    struct Candidate {
      PieceClass what;
      size_t length;
    };
    const Candidate candidates[] = {
        {PieceClass::kUuid, TypeLength(CaptureType::kUuid, at)},
        {PieceClass::kInet, IsDigit(c) ? QuadLength(at) : 0},
        {PieceClass::kDate, DateLength(at)},
        {PieceClass::kMonth, MonthLength(at)},
        {PieceClass::kNumber, FractionLength(at)},
        {PieceClass::kDay, DayLength(at)},
        {PieceClass::kInt, IntLength(at)},
        {PieceClass::kHex, HexLength(at)},
        {PieceClass::kDigits, DigitsLength(at)},
    };
    for (const Candidate& candidate : candidates) {
      if (candidate.length == 0) continue;
      what = candidate.what;
      return candidate.length;
    }
    return 0;
  }

  // The length of the longest value of the type that ends where a piece ends.
  size_t TypeLength(CaptureType type, size_t at) const {
    PrefixLengths prefixes;
    FindPrefixes(type, Rest(at), prefixes);
    while (prefixes.count > 0) {
      const size_t length = prefixes.length[--prefixes.count];
      if (EndsPiece(at + length)) return length;
    }
    return 0;
  }

  size_t RunOfDigits(size_t at) const {
    size_t end = at;
    while (end < key_.size() && IsDigit(key_[end])) ++end;
    return end - at;
  }

  bool Follows(size_t at, char c) const {
    return at + 1 < key_.size() && key_[at] == c && IsDigit(key_[at + 1]);
  }

  size_t QuadLength(size_t at) const {
    if (key_.substr(at, 4).find('.') == Bytes::npos) return 0;
    const size_t length = InetLength(at);
    return length > 0 && key_.substr(at, length).find(':') == Bytes::npos ? length : 0;
  }

  size_t DateLength(size_t at) const {
    if (RunOfDigits(at) != 4) return 0;
    const size_t length = TypeLength(CaptureType::kDate, at);
    return length == 10 && !Follows(at + length, '-') ? length : 0;
  }

  size_t MonthLength(size_t at) const {
    if (RunOfDigits(at) != 4) return 0;
    const size_t length = TypeLength(CaptureType::kMonth, at);
    return length == 7 && !Follows(at + length, '-') ? length : 0;
  }

  size_t DayLength(size_t at) const {
    const bool this_age = key_.compare(at, 2, "19") == 0 || key_.compare(at, 2, "20") == 0;
    return this_age && RunOfDigits(at) == 8 && FitsType(CaptureType::kDate, key_.substr(at, 8)) &&
                   EndsPiece(at + 8)
               ? 8
               : 0;
  }

  size_t FractionLength(size_t at) const {
    if (stop_separates_) return 0;
    const size_t whole = RunOfDigits(at);
    if (whole == 0 || !Follows(at + whole, '.') || (key_[at] == '0' && whole > 1)) return 0;
    const size_t length = whole + 1 + RunOfDigits(at + whole + 1);
    return EndsPiece(at + length) && !Follows(at + length, '.') ? length : 0;
  }

  size_t IntLength(size_t at) const {
    const size_t length = RunOfDigits(at);
    if (length == 0 || length > kMostIntDigits || (key_[at] == '0' && length > 1)) return 0;
    return EndsPiece(at + length) ? length : 0;
  }

  size_t DigitsLength(size_t at) const {
    const size_t length = RunOfDigits(at);
    return length > 1 && key_[at] == '0' && EndsPiece(at + length) ? length : 0;
  }

  size_t HexLength(size_t at) const {
    size_t digits = 0, lower = 0, upper = 0, end = at;
    for (; end < key_.size() && IsHexDigit(key_[end]); ++end) {
      (IsDigit(key_[end]) ? digits : IsLower(key_[end]) ? lower : upper) += 1;
    }
    const size_t length = end - at;
    if (length < kLeastHash || !EndsPiece(end) || (lower > 0 && upper > 0)) return 0;
    const bool usual = length == 16 || length == 24 || length == 32 || length == 40 || length == 56 ||
                       length == 64 || length == 96 || length == 128;
    return usual || (digits > 0 && lower + upper > 0) || (digits == length && length > kMostIntDigits)
               ? length
               : 0;
  }

  const Bytes whole_;
  const Bytes key_;  // the part that is parsed
  KeyShape& shape_;
  bool stop_separates_ = false;
};

}  // namespace

void FindShape(Bytes key, KeyShape& shape) { ShapeFinder(key, shape).Run(); }

}  // namespace prm
