// Users' SQL that becomes part of our statements: one expression, one query or one SET list, and nothing that
// could affect the surrounding statement.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Checks that a text is exactly one expression. Parameters are refused: those of the surrounding statement
// are not the user's. `option` is its name in messages, such as "condition". Errors: 42601, with the place in
// the text.
void CheckExpression(const std::string &sql, const std::string &option);

// Checks that a text is exactly one SELECT without parameters, which may stand in parentheses. Errors: 42601,
// with the place in the text.
void CheckQuery(const std::string &sql, const std::string &option);

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
