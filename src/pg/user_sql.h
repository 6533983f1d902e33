// SQL that users give as text and that stands in our statements: one expression or one SET list, with nothing
// beside it that could reach into the statement around it.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Checks that a text is exactly one expression. It has no parameters: those of the statement around it are
// not the user's. `option` is what messages call it, such as "condition". Errors: 42601, with the place in
// the text.
void CheckExpression(const std::string &sql, const std::string &option);

// Checks that a text is exactly one SET list without parameters. Errors: 42601, with the place in the text;
// `hint` says what may be written.
void CheckSetList(const std::string &sql, const std::string &option, const std::string &hint);

// The items of a SET list. Each expression ends with a line of its own: a comment must not swallow what
// follows. Errors: as CheckSetList, and for items that are not column = expression.
struct SetItem {
  std::string column;
  std::string expression;
};
std::vector<SetItem> ParseSetList(const std::string &sql, const std::string &option, const std::string &hint);

}  // namespace prm::pg
