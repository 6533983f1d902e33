#include "pg/text_table.h"

#include "pg/guard.h"
#include "pg/pg.h"

namespace prm::pg {

std::string TextTable::ToString() const {
  auto width = [](const std::string &cell) {
    return Call([&] {
      return static_cast<size_t>(pg_mbstrlen_with_len(cell.data(), static_cast<int>(cell.size())));
    });
  };
  std::vector<size_t> widths(right_.size(), 0);
  for (const auto &row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  std::string text;
  auto add = [&](const std::vector<std::string> &row) {
    std::string line = " ";
    for (size_t i = 0; i < row.size(); ++i) {
      std::string const room(widths[i] - width(row[i]), ' ');
      line += " " + (right_[i] ? room + row[i] : row[i] + room);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  add(rows_.front());
  std::vector<std::string> rule;
  for (size_t const columns : widths) rule.emplace_back(columns, '-');
  add(rule);
  for (size_t i = 1; i < rows_.size(); ++i) add(rows_[i]);
  text.pop_back();
  return text;
}

}  // namespace prm::pg
