#include "lib/cpp/rdb_builders.h"

#include <charconv>
#include <limits>

namespace prm::test {

namespace {

std::string BigEndian(uint64_t value, size_t size) {
  std::string bytes;
  for (size_t i = size; i-- > 0;) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

// Whether the text is what printing the integer gives.
bool IsInteger(const std::string& text, int64_t& integer) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), integer);
  return error == std::errc() && end == text.data() + text.size() && std::to_string(integer) == text;
}

template <typename T>
bool Fits(int64_t integer) {
  return integer >= std::numeric_limits<T>::min() && integer <= std::numeric_limits<T>::max();
}

std::string ZiplistElement(const std::string& text) {
  int64_t integer = 0;
  if (IsInteger(text, integer)) {
    const auto bits = static_cast<uint64_t>(integer);
    if (integer >= 0 && integer <= 12) return std::string(1, static_cast<char>(0xf1 + integer));
    if (Fits<int8_t>(integer)) return "\xfe" + LittleEndian(bits, 1);
    if (Fits<int16_t>(integer)) return "\xc0" + LittleEndian(bits, 2);
    if (integer >= -(1 << 23) && integer < (1 << 23)) return "\xf0" + LittleEndian(bits, 3);
    if (Fits<int32_t>(integer)) return "\xd0" + LittleEndian(bits, 4);
    return "\xe0" + LittleEndian(bits, 8);
  }
  if (text.size() < 64) return std::string(1, static_cast<char>(text.size())) + text;
  if (text.size() < 16384) return BigEndian(0x4000 | text.size(), 2) + text;
  return "\x80" + BigEndian(text.size(), 4) + text;
}

std::string ZipmapLength(size_t length) {
  return length < 254 ? std::string(1, static_cast<char>(length)) : "\xfe" + LittleEndian(length, 4);
}

}  // namespace

std::string LittleEndian(uint64_t value, size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

std::string Length(uint64_t length) {
  if (length < 64) return BigEndian(length, 1);
  if (length < 16384) return BigEndian(0x4000 | length, 2);
  if (length <= UINT32_MAX) return "\x80" + BigEndian(length, 4);
  return "\x81" + BigEndian(length, 8);
}

std::string String(Bytes bytes) { return Length(bytes.size()) + std::string(bytes); }

std::string Ziplist(const std::vector<std::string>& elements) {
  constexpr size_t kHeader = 10;
  std::string body;
  size_t size_before = 0;
  size_t tail = kHeader;
  for (const std::string& text : elements) {
    std::string element = size_before < 254 ? std::string(1, static_cast<char>(size_before))
                                            : "\xfe" + LittleEndian(size_before, 4);
    element += ZiplistElement(text);
    tail = kHeader + body.size();
    size_before = element.size();
    body += element;
  }
  const size_t count = elements.size() < 65535 ? elements.size() : 65535;
  return LittleEndian(kHeader + body.size() + 1, 4) + LittleEndian(tail, 4) + LittleEndian(count, 2) + body +
         "\xff";
}

std::string Zipmap(const std::vector<std::pair<std::string, std::string>>& fields, uint8_t unused) {
  std::string bytes(1, static_cast<char>(fields.size() < 254 ? fields.size() : 254));
  for (const auto& [field, value] : fields) {
    bytes += ZipmapLength(field.size()) + field + ZipmapLength(value.size()) + static_cast<char>(unused) +
             value + std::string(unused, '?');
  }
  return bytes + "\xff";
}

std::string Listpack(const std::vector<ListpackItem>& items) {
  std::string body;
  for (const ListpackItem& item : items) {
    const std::string element = item.integer ? "\xf4" + LittleEndian(static_cast<uint64_t>(*item.integer), 8)
                                             : BigEndian(0xe000 | item.text.size(), 2) + item.text;
    body += element;
    body += element.size() < 128 ? BigEndian(element.size(), 1)
                                 : BigEndian((element.size() >> 7) << 8 | 0x80 | (element.size() & 0x7f), 2);
  }
  return LittleEndian(body.size() + 7, 4) + LittleEndian(items.size(), 2) + body + "\xff";
}

std::string TextScore(const std::string& score) {
  if (score == "nan") return "\xfd";
  if (score == "inf") return "\xfe";
  if (score == "-inf") return "\xff";
  return std::string(1, static_cast<char>(score.size())) + score;
}

uint64_t ModuleId(const std::string& name, unsigned version) {
  const std::string characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  uint64_t id = 0;
  for (const char c : name) id = id << 6 | characters.find(c);
  return id << 10 | version;
}

}  // namespace prm::test
