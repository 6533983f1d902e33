#include "core/capture_type.h"

#include <arpa/inet.h>

#include <limits>

namespace prm {
namespace {

struct NamedType {
  CaptureType type;
  const char* name;
};

constexpr NamedType kTypes[] = {
    {CaptureType::kText, "text"},   {CaptureType::kInt, "int"},   {CaptureType::kNumber, "number"},
    {CaptureType::kUuid, "uuid"},   {CaptureType::kInet, "inet"}, {CaptureType::kDate, "date"},
    {CaptureType::kMonth, "month"}, {CaptureType::kHex, "hex"},   {CaptureType::kEmail, "email"},
};

// The C library's classification depends on the locale; keys do not.
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsLetterOrDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

void Add(PrefixLengths& prefixes, size_t length) {
  prefixes.length[prefixes.count++] = static_cast<uint16_t>(length);
}

void FindInts(Bytes text, PrefixLengths& prefixes) {
  const bool negative = !text.empty() && text[0] == '-';
  const size_t first = negative ? 1 : 0;
  const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) + (negative ? 1 : 0);
  uint64_t magnitude = 0;
  for (size_t i = first; i < text.size() && IsDigit(text[i]); ++i) {
    const auto digit = static_cast<uint64_t>(text[i] - '0');
    if (magnitude > (limit - digit) / 10) return;
    magnitude = magnitude * 10 + digit;
    if (magnitude == 0) {
      if (!negative) Add(prefixes, i + 1);
      return;  // nothing may follow a leading zero
    }
    Add(prefixes, i + 1);
  }
}

void FindNumbers(Bytes text, PrefixLengths& prefixes) {
  const bool negative = !text.empty() && text[0] == '-';
  const size_t first = negative ? 1 : 0;
  bool is_zero = true;
  size_t i = first;
  for (; i < text.size() && IsDigit(text[i]); ++i) {
    if (i > first && text[first] == '0') return;
    if (text[i] != '0') is_zero = false;
    if (!negative || !is_zero) Add(prefixes, i + 1);
  }
  if (i == first || i == text.size() || text[i] != '.') return;
  for (++i; i < text.size() && IsDigit(text[i]); ++i) {
    if (text[i] != '0') is_zero = false;
    if (!negative || !is_zero) Add(prefixes, i + 1);
  }
}

void FindUuid(Bytes text, PrefixLengths& prefixes) {
  constexpr std::string_view kShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  if (text.size() < kShape.size()) return;
  for (size_t i = 0; i < kShape.size(); ++i) {
    if (kShape[i] == '-' ? text[i] != '-' : !IsHexDigit(text[i])) return;
  }
  Add(prefixes, kShape.size());
}

void FindHex(Bytes text, PrefixLengths& prefixes) {
  for (size_t i = 0; i < text.size() && IsHexDigit(text[i]); ++i) Add(prefixes, i + 1);
}

// Dotted quads at `offset` of text; the lengths found count from the start of text.
void FindIpv4(Bytes text, size_t offset, PrefixLengths& prefixes) {
  size_t i = offset;
  for (int octet = 1; octet <= 4; ++octet) {
    const size_t first = i;
    int value = 0;
    for (; i < text.size() && i - first < 3 && IsDigit(text[i]); ++i) {
      if (i > first && text[first] == '0') break;
      if (value * 10 + (text[i] - '0') > 255) break;
      value = value * 10 + (text[i] - '0');
      if (octet == 4) Add(prefixes, i + 1);
    }
    if (i == first || octet == 4 || i == text.size() || text[i] != '.') return;
    ++i;
  }
}

// RFC 4291, 2.2: eight groups of one to four digits; "::" once for one or more groups of zeros; the last
// two groups may be written as an IPv4 address.
void FindIpv6(Bytes text, PrefixLengths& prefixes) {
  size_t i = 0;
  int groups = 0;
  bool compressed = false;
  if (text.substr(0, 2) == "::") {
    compressed = true;
    i = 2;
    Add(prefixes, i);
  }
  while (groups < (compressed ? 7 : 8)) {
    const size_t first = i;
    PrefixLengths ipv4;
    if (compressed ? groups <= 5 : groups == 6) FindIpv4(text, first, ipv4);
    ++groups;
    for (; i < text.size() && i - first < 4 && IsHexDigit(text[i]); ++i) {
      if (compressed || groups == 8) Add(prefixes, i + 1);
    }
    // A dotted quad is longer than any group, so the order stays ascending.
    for (size_t k = 0; k < ipv4.count; ++k) Add(prefixes, ipv4.length[k]);
    if (i == first || i == text.size() || text[i] != ':') return;
    ++i;
    if (i < text.size() && text[i] == ':') {
      if (compressed || groups > 7) return;
      compressed = true;
      ++i;
      Add(prefixes, i);
    }
  }
}

void FindInet(Bytes text, PrefixLengths& prefixes) {
  FindIpv4(text, 0, prefixes);
  if (prefixes.count == 0) FindIpv6(text, prefixes);
}

// The value of the `count` digits at `offset`; -1 when they are not all digits.
int Digits(Bytes text, size_t offset, size_t count) {
  if (text.size() < offset + count) return -1;
  int value = 0;
  for (size_t i = offset; i < offset + count; ++i) {
    if (!IsDigit(text[i])) return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

bool IsMonth(int year, int month) { return year >= 1 && month >= 1 && month <= 12; }

bool IsDate(int year, int month, int day) {
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (!IsMonth(year, month)) return false;
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  return day >= 1 && day <= kDays[month - 1] + (month == 2 && leap ? 1 : 0);
}

void FindDates(Bytes text, PrefixLengths& prefixes) {
  const int year = Digits(text, 0, 4);
  if (IsDate(year, Digits(text, 4, 2), Digits(text, 6, 2))) Add(prefixes, 8);
  if (text.size() >= 10 && text[4] == '-' && text[7] == '-' &&
      IsDate(year, Digits(text, 5, 2), Digits(text, 8, 2))) {
    Add(prefixes, 10);
  }
}

void FindMonths(Bytes text, PrefixLengths& prefixes) {
  const int year = Digits(text, 0, 4);
  if (IsMonth(year, Digits(text, 4, 2))) Add(prefixes, 6);
  if (text.size() >= 7 && text[4] == '-' && IsMonth(year, Digits(text, 5, 2))) Add(prefixes, 7);
}

void FindEmails(Bytes text, PrefixLengths& prefixes) {
  size_t i = 0;
  for (; i < text.size() && text[i] != '@'; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte <= ' ' || byte == 0x7f || byte == ':') return;
  }
  if (i == 0) return;
  bool dotted = false;
  size_t label = i + 1;  // where the current label of the domain begins
  for (i = label; i < text.size(); ++i) {
    if (IsLetterOrDigit(text[i])) {
      if (dotted) Add(prefixes, i + 1);
    } else if (text[i] == '.') {
      if (i == label || text[i - 1] == '-') return;
      dotted = true;
      label = i + 1;
    } else if (text[i] != '-' || i == label) {
      return;
    }
  }
}

bool IsCanonicalIpv6(Bytes text) {
  const std::string address(text);
  in6_addr bytes = {};
  char printed[INET6_ADDRSTRLEN];
  return inet_pton(AF_INET6, address.c_str(), &bytes) == 1 &&
         inet_ntop(AF_INET6, &bytes, printed, sizeof(printed)) != nullptr && address == printed;
}

}  // namespace

const char* CaptureTypeName(CaptureType type) {
  for (const NamedType& entry : kTypes) {
    if (entry.type == type) return entry.name;
  }
  return "unknown";
}

std::string CaptureTypeNames() {
  std::string names;
  for (const NamedType& entry : kTypes) {
    if (!names.empty()) names += ", ";
    names += entry.name;
  }
  return names;
}

std::optional<CaptureType> CaptureTypeFromName(std::string_view name) {
  for (const NamedType& entry : kTypes) {
    if (name == entry.name) return entry.type;
  }
  return std::nullopt;
}

void FindPrefixes(CaptureType type, Bytes text, PrefixLengths& prefixes) {
  prefixes.count = 0;
  text = text.substr(0, kMaxTypedBytes);
  switch (type) {
    case CaptureType::kText:
      return;  // all prefixes: nothing to find
    case CaptureType::kInt:
      return FindInts(text, prefixes);
    case CaptureType::kNumber:
      return FindNumbers(text, prefixes);
    case CaptureType::kUuid:
      return FindUuid(text, prefixes);
    case CaptureType::kInet:
      return FindInet(text, prefixes);
    case CaptureType::kDate:
      return FindDates(text, prefixes);
    case CaptureType::kMonth:
      return FindMonths(text, prefixes);
    case CaptureType::kHex:
      return FindHex(text, prefixes);
    case CaptureType::kEmail:
      return FindEmails(text, prefixes);
  }
}

bool IsCanonical(CaptureType type, Bytes text) {
  switch (type) {
    case CaptureType::kNumber:
      return text.find('.') == Bytes::npos || text.back() != '0';
    case CaptureType::kUuid:
      return text.find_first_of("ABCDEF") == Bytes::npos;
    case CaptureType::kInet:
      return text.find(':') == Bytes::npos || IsCanonicalIpv6(text);
    case CaptureType::kDate:
    case CaptureType::kMonth:
      return text.find('-') != Bytes::npos;
    case CaptureType::kText:
    case CaptureType::kInt:
    case CaptureType::kHex:
    case CaptureType::kEmail:
      break;
  }
  return true;
}

bool FitsType(CaptureType type, Bytes text) {
  if (type == CaptureType::kText) return !text.empty();
  if (text.size() > kMaxTypedBytes) return false;
  PrefixLengths prefixes;
  FindPrefixes(type, text, prefixes);
  return prefixes.count > 0 && prefixes.length[prefixes.count - 1] == text.size();
}

}  // namespace prm
