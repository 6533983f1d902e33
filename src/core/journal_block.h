// A block of a journal: changes of rows, with the values of their columns as texts, as bytes.
//
// A line is: a byte of flags (1: has values before; 2: has values after), then the values before of all
// columns, or of the key columns alone if there was no such row; then what is known of the values after. A
// value is a number and so many bytes less one; 0 stands for NULL. A number has seven bits in each byte, the
// lowest first, and the highest bit set in all but the last.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/siphash.h"

namespace prm {

using RowText = std::vector<std::optional<std::string>>;

struct JournalLine {
  RowText key;
  std::optional<RowText> earlier;  // nothing: there was no such row
  // For each column: nothing: it stayed as it was; "": it was NULL; otherwise ValueDigest. Nothing
  // altogether: the row was deleted.
  std::optional<RowText> later;
};

// How a journal remembers a value that a row had later: "" for NULL, otherwise eight bytes. salt: of the
// block, unpredictable, so that nobody can choose a value with the same digest.
std::string ValueDigest(const SipKey& salt, const std::optional<Bytes>& text);

class JournalBlock {
 public:
  enum Flags : char { kHasEarlier = 1, kHasLater = 2 };
  // A line is begun, and its values are added in order.
  void Begin(int flags) {
    bytes_.push_back(static_cast<char>(flags));
    ++lines_;
  }
  void Add(const std::optional<Bytes>& value);
  void Add(const JournalLine& line);

  const std::string& bytes() const { return bytes_; }
  int lines() const { return lines_; }

 private:
  std::string bytes_;
  int lines_ = 0;
};

// Appends the lines of a block of rows with so many columns, the key columns first. False: it is damaged.
bool ReadJournalBlock(Bytes bytes, size_t columns, size_t keys, std::vector<JournalLine>& lines);

}  // namespace prm
