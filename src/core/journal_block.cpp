#include "core/journal_block.h"

namespace prm {

namespace {

class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}
  bool done() const { return at_ == bytes_.size(); }

  bool ReadByte(unsigned char& byte) {
    if (done()) return false;
    byte = static_cast<unsigned char>(bytes_[at_++]);
    return true;
  }

  bool ReadValues(size_t count, RowText& values) {
    for (size_t i = 0; i < count; ++i) {
      uint64_t size = 0;
      if (!ReadNumber(size)) return false;
      if (size == 0) {
        values.emplace_back();
        continue;
      }
      if (size - 1 > bytes_.size() - at_) return false;
      values.emplace_back(std::string(bytes_.substr(at_, size - 1)));
      at_ += size - 1;
    }
    return true;
  }

 private:
  bool ReadNumber(uint64_t& number) {
    number = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      unsigned char byte;
      if (!ReadByte(byte)) return false;
      number |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  }

  Bytes bytes_;
  size_t at_ = 0;
};

}  // namespace

std::string ValueDigest(const SipKey& salt, const std::optional<Bytes>& text) {
  if (!text) return "";
  uint64_t const hash = SipHash128(salt, *text).low;
  std::string digest;
  for (int shift = 0; shift < 64; shift += 8) digest.push_back(static_cast<char>(hash >> shift));
  return digest;
}

void JournalBlock::Add(const std::optional<Bytes>& value) {
  uint64_t number = value ? value->size() + 1 : 0;
  for (; number > 127; number >>= 7) bytes_.push_back(static_cast<char>((number & 127) | 128));
  bytes_.push_back(static_cast<char>(number));
  if (value) bytes_.append(*value);
}

void JournalBlock::Add(const JournalLine& line) {
  Begin((line.earlier ? kHasEarlier : 0) | (line.later ? kHasLater : 0));
  for (const auto& value : line.earlier ? *line.earlier : line.key) Add(value);
  if (!line.later) return;
  for (const auto& value : *line.later) Add(value);
}

bool ReadJournalBlock(Bytes bytes, size_t columns, size_t keys, std::vector<JournalLine>& lines) {
  Reader reader(bytes);
  if (keys > columns) return false;
  while (!reader.done()) {
    JournalLine line;
    unsigned char flags;
    if (!reader.ReadByte(flags) || flags > 3) return false;
    RowText values;
    bool const has_earlier = (flags & JournalBlock::kHasEarlier) != 0;
    if (!reader.ReadValues(has_earlier ? columns : keys, values)) return false;
    line.key.assign(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(keys));
    if (has_earlier) line.earlier = std::move(values);
    if ((flags & JournalBlock::kHasLater) != 0) {
      line.later.emplace();
      if (!reader.ReadValues(columns, *line.later)) return false;
    }
    lines.push_back(std::move(line));
  }
  return true;
}

}  // namespace prm
