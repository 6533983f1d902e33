#include "mapping/ledger_choice.h"

namespace prm {

using pg::Call;

bool RowsTellKeysApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts) {
  auto in_key = [&](const char *column) { return IsAmongKeyColumns(column, mapping, facts); };
  bool one_database = mapping.databases && mapping.databases->size() == 1;
  if (!one_database && !in_key("db")) return false;
  if (!HasKeyAmongKeyColumns(mapping, facts)) {
    if (pattern.has_star()) return false;
    for (const Capture &capture : pattern.captures()) {
      bool has_one_spelling = capture.type == CaptureType::kText || capture.type == CaptureType::kHex ||
                              capture.type == CaptureType::kEmail || capture.type == CaptureType::kInt;
      if (!in_key(capture.name.c_str()) || !(has_one_spelling || mapping.exclusive)) return false;
    }
  }
  switch (ExpandFromName(mapping.expand)) {
    case Expand::kNone:
      return true;
    case Expand::kGroups:
      return in_key("group_name");
    case Expand::kPending:
      return in_key("group_name") && in_key("entry_id");
    case Expand::kElements:
      break;
  }
  for (const char *column :
       {"field", "field_bytes", "member", "member_bytes", "position", "ordinal", "entry_id"})
    if (in_key(column)) return true;
  return false;
}

std::optional<std::string> SourceOf(const std::string &key_column, const QueryFacts &facts) {
  for (const auto &[column, copy] : facts.copied)
    if (copy == key_column) return column;
  return std::nullopt;
}

namespace {

bool IsOfName(const std::string &column, const KeyPattern &pattern) {
  if (column == "key" || column == "key_bytes" || column == "db") return true;
  const std::vector<Capture> &captures = pattern.captures();
  return std::any_of(captures.begin(), captures.end(),
                     [&](const Capture &capture) { return capture.name == column; });
}

// Whether values that the key's index takes for the same have the same bytes, so that a hash of the bytes
// stands for the value.
bool EqualMeansSameBytes(const KeyColumn &key) {
  return Call([&] {
    Oid left, right;
    op_input_types(key.equality, &left, &right);
    // The padding of character(n) depends on n, which expressions lose.
    if (left == BPCHAROID) return false;
    Oid const collation = OidIsValid(key.collation) ? key.collation : key.column.collation;
    List *families = get_mergejoin_opfamilies(key.equality);
    for (int i = 0; i < list_length(families); ++i) {
      Oid const test = get_opfamily_proc(list_nth_oid(families, i), left, right, BTEQUALIMAGE_PROC);
      if (OidIsValid(test) && DatumGetBool(OidFunctionCall1Coll(test, collation, ObjectIdGetDatum(left))))
        return true;
    }
    return false;
  });
}

}  // namespace

LedgerChoice ChooseLedger(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                          const QueryFacts &facts) {
  bool const apart = RowsTellKeysApart(mapping, pattern, facts);
  if (mapping.exclusive) return {"none", "it is exclusive: every row of the target is its own"};
  if (apart && mapping.on_delete == "keep")
    return {"none", "no two keys yield the same row, and on_delete is 'keep'"};
  if (!apart)
    return {"full",
            "two keys could yield the same row: not each capture, and db unless databases names a single "
            "one, stands unchanged in key_columns"};
  if (mapping.expand) return {"full", "with expand a key has several rows"};
  if (target.kind != TargetKind::kLocal) return {"full", "the target is a view or a foreign table"};
  std::string copies;
  for (const KeyColumn &key : target.keys) {
    std::optional<std::string> const source = SourceOf(key.column.name, facts);
    if (!source || !IsOfName(*source, pattern))
      return {"full",
              "key column \"" + key.column.name + "\" is not a copy of what the name of the key says"};
    if (!EqualMeansSameBytes(key))
      return {"full", "values of key column \"" + key.column.name + "\" can be equal and yet differ"};
    copies += (copies.empty() ? "" : ", ") + key.column.name + " = " + *source;
  }
  return {"packed", "no two keys yield the same row: " + copies};
}

}  // namespace prm
