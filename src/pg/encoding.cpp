#include "pg/encoding.h"

namespace prm::pg {
namespace {

// Whether all bytes are ASCII and none is zero. Eight at a time: every value passes through here.
bool IsAscii(Bytes text) {
  constexpr uint64 kHighBits = 0x8080808080808080, kOnes = 0x0101010101010101;
  const char *at = text.data();
  const char *const end = at + text.size();
  for (; end - at >= static_cast<ptrdiff_t>(sizeof(uint64)); at += sizeof(uint64)) {
    uint64 word;
    memcpy(&word, at, sizeof word);
    // Subtraction sets the high bit of a byte that is zero.
    if (((word | (word - kOnes)) & kHighBits) != 0) return false;
  }
  for (; at != end; ++at)
    if (static_cast<signed char>(*at) <= 0) return false;
  return true;
}

// Whether the server's text has the same bytes as UTF-8.
bool HasBytesOfUtf8(int encoding) { return encoding == PG_UTF8 || encoding == PG_SQL_ASCII; }

// Whether all of `text` could be converted.
bool Convert(Bytes text, int from_encoding, int to_encoding, std::string &converted) {
  const int size = static_cast<int>(text.size());
  converted.resize(text.size() * MAX_CONVERSION_GROWTH + 1);
  const bool is_whole = Call([&] {
    const Oid function = FindDefaultConversionProc(from_encoding, to_encoding);
    if (!OidIsValid(function)) return false;
    auto *const from = reinterpret_cast<unsigned char *>(const_cast<char *>(text.data()));
    auto *const to = reinterpret_cast<unsigned char *>(converted.data());
    return pg_do_encoding_conversion_buf(function, from_encoding, to_encoding, from, size, to,
                                         static_cast<int>(std::min<size_t>(converted.size(), INT_MAX)),
                                         true) == size;
  });
  if (is_whole) converted.resize(strlen(converted.c_str()));
  return is_whole;
}

}  // namespace

std::optional<Bytes> TextFromUtf8(Bytes utf8, std::string &scratch) {
  if (IsAscii(utf8)) return utf8;
  if (utf8.find('\0') != Bytes::npos) return std::nullopt;
  const int size = static_cast<int>(utf8.size());
  if (!Call([&] { return pg_encoding_verifymbstr(PG_UTF8, utf8.data(), size) == size; })) return std::nullopt;
  const int encoding = GetDatabaseEncoding();
  if (HasBytesOfUtf8(encoding)) return utf8;
  if (!Convert(utf8, PG_UTF8, encoding, scratch)) return std::nullopt;
  return scratch;
}

std::string Utf8FromText(Bytes text, const std::string &what) {
  const int encoding = GetDatabaseEncoding();
  if (HasBytesOfUtf8(encoding) || IsAscii(text)) return std::string(text);
  std::string utf8;
  if (!Convert(text, encoding, PG_UTF8, utf8))
    throw Failure(
        ERRCODE_UNTRANSLATABLE_CHARACTER, what + " cannot be converted to UTF-8",
        "It has characters of encoding " + std::string(GetDatabaseEncodingName()) + " that UTF-8 lacks.");
  return utf8;
}

}  // namespace prm::pg
