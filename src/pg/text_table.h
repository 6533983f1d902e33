// Tables as text, for people.
#pragma once

#include <string>
#include <vector>

namespace prm::pg {

class TextTable {
 public:
  // right: which columns are numbers, and stand to the right.
  TextTable(std::vector<std::string> headings, std::vector<bool> right)
      : right_(std::move(right)), rows_{std::move(headings)} {}
  // As many cells as headings.
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.size() == 1; }

  // Lines, each indented, the last without its end: headings, a rule, the rows. Columns are as wide as what
  // is in them, in characters of the server's encoding.
  std::string ToString() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace prm::pg
