#include "audit/suggestion.h"

#include <algorithm>
#include <vector>

#include "pg/encoding.h"
#include "pg/memory.h"

namespace prm {
namespace {

constexpr size_t kMostTableNameBytes = 50;

// The literal text of a pattern in lower case, with every other byte as a blank.
std::string WordsOf(const KeyPattern &pattern) {
  std::string words;
  bool in_capture = false;
  const std::string &text = pattern.text();
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\\') continue;
    bool const escaped = i > 0 && text[i - 1] == '\\';
    if (c == '{' && !escaped) in_capture = true;
    bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    words += letter && !in_capture ? static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) : ' ';
    if (c == '}' && !escaped) in_capture = false;
  }
  return words;
}

// Whether one of the words begins with one of the starts.
bool HasWord(const std::string &words, std::initializer_list<const char *> starts) {
  for (const char *start : starts) {
    for (size_t at = words.find(start); at != std::string::npos; at = words.find(start, at + 1))
      if (at == 0 || words[at - 1] == ' ') return true;
  }
  return false;
}

// Data that would be missed most comes first; data that can be regenerated comes last, whatever it contains.
std::string PriorityOf(const std::string &words) {
  if (HasWord(words, {"cache", "tmp", "lock", "mutex", "throttle", "ratelimit", "rate", "rl", "rlflx",
                      "limit", "nonce", "csrf", "rack"}))
    return "low";
  if (HasWord(words,
              {"premium", "subscription", "payment", "order", "invoice", "billing", "wallet", "balance",
               "credit", "purchase", "charge", "transaction", "checkout", "licen", "stripe", "paid"}))
    return "critical";
  if (HasWord(words, {"session", "sess", "stat", "count", "metric", "analytic", "failed", "attempt"}))
    return "medium";
  if (HasWord(words, {"user", "account", "customer", "member", "email", "profile", "usage", "auth", "team"}))
    return "high";
  return "medium";
}

std::string TableName(const std::string &words, const std::optional<int> &database,
                      std::set<std::string> &tables) {
  std::string name;
  for (char c : words) {
    if (c != ' ')
      name += c;
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  while (!name.empty() && name.back() == '_') name.pop_back();
  if (name.size() > kMostTableNameBytes) name.resize(kMostTableNameBytes);
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) name = "redis_" + (name.empty() ? "keys" : name);
  if (database) name += "_db" + std::to_string(*database);
  std::string unique = name;
  for (int number = 2; !tables.insert(unique).second; ++number) unique = name + "_" + std::to_string(number);
  return unique;
}

const char *ColumnType(CaptureType type) {
  switch (type) {
    case CaptureType::kInt:
      return "bigint";
    case CaptureType::kNumber:
      return "numeric";
    case CaptureType::kUuid:
      return "uuid";
    case CaptureType::kInet:
      return "inet";
    case CaptureType::kDate:
    case CaptureType::kMonth:
      return "date";
    default:
      return "text";
  }
}

struct Column {
  std::string name;
  std::string type;
  std::string expression;  // over redis_batch; empty: the column of that name
  bool in_key = false;
};

// Whether all values that were read are of some kinds. False when none was read.
bool AreAll(const FamilyStats &stats, std::initializer_list<ValueKind> kinds) {
  uint64_t count = 0;
  for (ValueKind kind : kinds) count += stats.kinds[static_cast<size_t>(kind)];
  return stats.values > 0 && count == stats.values;
}

bool IsText(const FamilyStats &stats) {
  constexpr ValueKind kOpaque[] = {ValueKind::kPickle, ValueKind::kJava,    ValueKind::kMarshal,
                                   ValueKind::kRails,  ValueKind::kMsgpack, ValueKind::kGzip,
                                   ValueKind::kZlib,   ValueKind::kZstd,    ValueKind::kBinary};
  uint64_t opaque = 0;
  for (ValueKind kind : kOpaque) opaque += stats.kinds[static_cast<size_t>(kind)];
  return opaque == 0;
}

// Numbers of one length are probably codes, and others of them may begin with zeros.
bool AreCodes(const FamilyStats &stats) {
  const Range &digits = stats.integer_digits;
  return digits.count > 1 && digits.least == digits.greatest && digits.least >= 4 && digits.least <= 8;
}

Column ValueColumn(const FamilyStats &stats, const char *name) {
  std::string column = name;
  if (!IsText(stats)) return {column, "bytea", column + "_bytes", false};
  return {column, "text", "", false};
}

std::vector<Column> StringColumns(const FamilyStats &stats) {
  if (AreAll(stats, {ValueKind::kInteger}) && !AreCodes(stats))
    return {{"value", "bigint", "value::bigint", false}};
  if (AreAll(stats, {ValueKind::kJsonObject, ValueKind::kJsonArray}))
    return {{"value", "jsonb", "json", false}};
  return {ValueColumn(stats, "value")};
}

// The columns that a type has beside those of the pattern; none for a type that no mapping takes.
std::vector<Column> ValueColumns(const std::string &type, const FamilyStats &stats) {
  Column key = ValueColumn(stats, "member");
  key.in_key = true;
  if (type == "string") return StringColumns(stats);
  if (type == "list") return {{"ordinal", "bigint", "", true}, ValueColumn(stats, "value")};
  if (type == "set") return {key};
  if (type == "zset") return {key, {"score", "double precision", "", false}};
  if (type == "hash") return {{"field", "text", "", true}, ValueColumn(stats, "value")};
  if (type == "stream")
    return {{"entry_id", "text", "", true},
            IsText(stats) ? Column{"content", "jsonb", "json", false}
                          : Column{"content", "bytea[]", "fields_bytes", false}};
  return {};
}

std::string List(const std::vector<std::string> &items) {
  std::string list;
  for (const std::string &item : items) list += (list.empty() ? "" : ", ") + item;
  return list;
}

}  // namespace

Suggestion Suggest(const Family &family, const std::string &migration, const std::optional<int> &database,
                   std::set<std::string> &tables) {
  std::string const words = WordsOf(family.pattern);
  Suggestion suggestion{PriorityOf(words), std::nullopt, std::nullopt};
  std::string const type = family.stats.Type();
  std::vector<Column> const values = ValueColumns(type, family.stats);
  // The pattern * would take the keys of all others. One that the server's encoding lacks cannot be written.
  std::string scratch;
  if (values.empty() || family.pattern.text() == "*" || !pg::TextFromUtf8(family.pattern.text(), scratch))
    return suggestion;

  std::vector<Column> columns;
  for (const Capture &capture : family.pattern.captures())
    columns.push_back({capture.name, ColumnType(capture.type), "", true});
  bool const has_key = std::any_of(values.begin(), values.end(), [](const Column &c) { return c.in_key; });
  if (family.pattern.has_star())
    columns.assign(1, {"key", "bytea", "key_bytes", true});
  else if (columns.empty() && !has_key)
    columns.push_back({"key", "text", "", true});
  columns.insert(columns.end(), values.begin(), values.end());
  columns.push_back({"expires_at", "timestamptz", "", false});

  std::string const table = TableName(words, database, tables);
  std::vector<std::string> definitions, expressions, key;
  for (const Column &column : columns) {
    std::string const name = pg::QuoteIdentifier(column.name);
    definitions.push_back(name + " " + column.type);
    expressions.push_back(column.expression.empty() ? name : column.expression + " AS " + name);
    if (column.in_key) key.push_back(column.name);
  }
  std::vector<std::string> quoted;
  for (const std::string &name : key) quoted.push_back(pg::QuoteIdentifier(name));
  suggestion.create_table = "CREATE TABLE " + pg::QuoteIdentifier(table) + " (" + List(definitions) +
                            ", PRIMARY KEY (" + List(quoted) + "))";
  suggestion.add_mapping =
      "SELECT redis_migrate.add_mapping(" + pg::QuoteLiteral(migration) + ", " + pg::QuoteLiteral(table) +
      ", " + pg::QuoteLiteral(family.pattern.text()) + ", " + pg::QuoteLiteral(pg::QuoteIdentifier(table)) +
      ", " + pg::QuoteLiteral("SELECT " + List(expressions) + " FROM redis_batch") + ", key_columns => '{" +
      List(key) + "}', priority => '" + suggestion.priority + "', types => '{" + type + "}'" +
      (type == "string" ? "" : ", expand => 'elements'") +
      (database ? ", databases => '{" + std::to_string(*database) + "}'" : "") + ")";
  return suggestion;
}

}  // namespace prm
