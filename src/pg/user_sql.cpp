#include "pg/user_sql.h"

#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/transaction.h"

namespace prm::pg {

namespace {

constexpr char kExpressionHint[] = "Write one expression, without a semicolon and without parameters.";
constexpr char kQueryHint[] = "Write one SELECT, without a semicolon and without parameters.";

// A user's text within a statement of ours.
class UserText {
 public:
  UserText(const std::string &before, const std::string &given, const std::string &after,
           const std::string &option, const std::string &hint)
      : before_(before.size()),
        statement_(before + given + after),
        what_(option + " \"" + given + "\" is not valid"),
        hint_(hint) {}

  // Errors: 42601.
  Node *Parse() {
    LocalSettings settings;  // a text must mean the same everywhere
    settings.Set("standard_conforming_strings", "on");
    List *statements = nullptr;
    try {
      InSubtransaction(
          [&] { statements = Call([&] { return raw_parser(statement_.c_str(), RAW_PARSE_DEFAULT); }); });
    } catch (const PgError &error) {
      if (ERRCODE_TO_CATEGORY(error.sqlstate()) != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION) throw;
      // internalpos is set where SPI runs the caller's statement.
      int const at = std::max(error.data()->cursorpos, error.data()->internalpos);
      int const position = at - static_cast<int>(before_);
      Refuse(std::string(error.what()) + (position > 0 ? ", at character " + std::to_string(position) : "") +
             ".");
    }
    if (statements == NIL) Refuse("It holds no statement.");
    if (list_length(statements) != 1) Refuse("It holds more than one statement.");
    Node *statement = static_cast<RawStmt *>(linitial(statements))->stmt;
    // A text alone may be of any kind, and the walker knows no utility commands.
    if (before_ == 0 && !IsA(statement, SelectStmt)) Refuse("It is not a SELECT.");
    ParamRef *parameter = nullptr;
    Call([&] { FindParameter(statement, &parameter); });
    if (parameter != nullptr)
      Refuse("There is no parameter $" + std::to_string(parameter->number) + ", at character " +
             std::to_string(CharactersBefore(parameter->location) - static_cast<int>(before_) + 1) + ".");
    return statement;
  }

  [[noreturn]] void Refuse(const std::string &why) const {
    throw Failure(ERRCODE_SYNTAX_ERROR, what_, why, hint_);
  }

 private:
  static bool FindParameter(Node *node, void *found) {
    if (node == nullptr) return false;
    if (IsA(node, ParamRef)) {
      *static_cast<ParamRef **>(found) = reinterpret_cast<ParamRef *>(node);
      return true;
    }
    return raw_expression_tree_walker(node, FindParameter, found);
  }

  int CharactersBefore(int byte) const {
    return Call([&] { return pg_mbstrlen_with_len(statement_.c_str(), byte); });
  }

  size_t before_;
  std::string statement_;
  std::string what_;
  std::string hint_;
};

bool IsOneExpression(Node *statement) {
  if (!IsA(statement, SelectStmt)) return false;
  auto *select = reinterpret_cast<SelectStmt *>(statement);
  if (select->op != SETOP_NONE || select->distinctClause != NIL || select->intoClause != nullptr ||
      list_length(select->targetList) != 1 || select->fromClause != NIL || select->whereClause != nullptr ||
      select->groupClause != NIL || select->havingClause != nullptr || select->windowClause != NIL ||
      select->sortClause != NIL || select->limitOffset != nullptr || select->limitCount != nullptr ||
      select->lockingClause != NIL)
    return false;
  auto *output = static_cast<ResTarget *>(linitial(select->targetList));
  if (output->name != nullptr || output->indirection != NIL) return false;
  return !IsA(output->val, ColumnRef) ||
         !IsA(llast(reinterpret_cast<ColumnRef *>(output->val)->fields), A_Star);
}

constexpr char kUpdate[] = "UPDATE t SET ";

UpdateStmt *ParseUpdate(UserText &list) {
  Node *statement = list.Parse();
  auto *update = reinterpret_cast<UpdateStmt *>(statement);
  if (!IsA(statement, UpdateStmt) || update->fromClause != NIL || update->whereClause != nullptr ||
      HasReturning(update))
    list.Refuse("FROM, WHERE and RETURNING are not allowed.");
  return update;
}

// The positions of the items of a SET list and their equals signs. PostgreSQL's scanner finds them, since it
// knows comments, quotes and nesting.
struct ItemPlace {
  int equals;
  int end;
};
std::vector<ItemPlace> PlacesOfItems(const std::string &list) {
  std::vector<ItemPlace> places;
  core_yy_extra_type extra;
  core_yyscan_t scanner =
      Call([&] { return scanner_init(list.c_str(), &extra, &ScanKeywords, ScanKeywordTokens); });
  int depth = 0;
  bool in_expression = false;
  for (;;) {
    core_YYSTYPE value;
    YYLTYPE place = 0;
    int const token = Call([&] { return core_yylex(&value, &place, scanner); });
    if (token == 0) break;
    if (token == '(' || token == '[') ++depth;
    if (token == ')' || token == ']') --depth;
    if (depth > 0) continue;
    if (token == '=' && !in_expression) {
      places.push_back({place, static_cast<int>(list.size())});
      in_expression = true;
    } else if (token == ',' && in_expression) {
      places.back().end = place;
      in_expression = false;
    }
  }
  Call([&] { scanner_finish(scanner); });
  return places;
}

}  // namespace

void CheckExpression(const std::string &sql, const std::string &option) {
  // First alone, so that it cannot close our parenthesis, then as it will be used.
  UserText alone("SELECT ", sql, "", option, kExpressionHint);
  if (!IsOneExpression(alone.Parse())) alone.Refuse("It is not exactly one expression.");
  UserText("SELECT (", sql, "\n)", option, kExpressionHint).Parse();
}

void CheckQuery(const std::string &sql, const std::string &option) {
  UserText("", sql, "", option, kQueryHint).Parse();
  UserText("SELECT FROM (", sql, "\n) AS query", option, kQueryHint).Parse();
}

void CheckSetList(const std::string &sql, const std::string &option, const std::string &hint) {
  UserText list(kUpdate, sql, "", option, hint);
  ParseUpdate(list);
}

std::vector<SetItem> ParseSetList(const std::string &sql, const std::string &option,
                                  const std::string &hint) {
  UserText list(kUpdate, sql, "", option, hint);
  List *targets = ParseUpdate(list)->targetList;
  std::vector<SetItem> items;
  for (int i = 0; i < list_length(targets); ++i) {
    auto *target = static_cast<ResTarget *>(list_nth(targets, i));
    if (target->indirection != NIL || IsA(target->val, MultiAssignRef) || IsA(target->val, SetToDefault))
      list.Refuse("Only column = expression is supported.");
    items.push_back({target->name, ""});
  }
  LocalSettings settings;
  settings.Set("standard_conforming_strings", "on");
  std::vector<ItemPlace> const places = PlacesOfItems(sql);
  if (places.size() != items.size()) list.Refuse("Only column = expression is supported.");
  for (size_t i = 0; i < items.size(); ++i)
    items[i].expression = sql.substr(places[i].equals + 1, places[i].end - places[i].equals - 1) + "\n";
  return items;
}

}  // namespace prm::pg
