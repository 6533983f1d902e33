#include "mapping/ledger_choice.h"

#include <cstring>

namespace prm {

using pg::Call;

bool KeysHaveRowsApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts) {
  auto in_key = [&](const char *column) { return IsAmongKeyColumns(column, mapping, facts); };
  bool one_database = mapping.databases && mapping.databases->size() == 1;
  if (!one_database && !in_key("db")) return false;
  if (HasKeyAmongKeyColumns(mapping, facts)) return true;
  if (pattern.has_star()) return false;
  for (const Capture &capture : pattern.captures()) {
    bool has_one_spelling = capture.type == CaptureType::kText || capture.type == CaptureType::kHex ||
                            capture.type == CaptureType::kEmail || capture.type == CaptureType::kInt;
    if (!in_key(capture.name.c_str()) || !(has_one_spelling || mapping.exclusive)) return false;
  }
  return true;
}

bool RowsTellKeysApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts) {
  if (!KeysHaveRowsApart(mapping, pattern, facts)) return false;
  auto in_key = [&](const char *column) { return IsAmongKeyColumns(column, mapping, facts); };
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

namespace {

bool IsOfName(const std::string &column, const KeyPattern &pattern) {
  if (column == "key" || column == "key_bytes" || column == "db") return true;
  const std::vector<Capture> &captures = pattern.captures();
  return std::any_of(captures.begin(), captures.end(),
                     [&](const Capture &capture) { return capture.name == column; });
}

}  // namespace

std::optional<std::string> NameColumnOf(const std::string &key_column, const KeyPattern &pattern,
                                        const QueryFacts &facts) {
  for (const auto &[column, copy] : facts.copied)
    if (copy == key_column && IsOfName(column, pattern)) return column;
  return std::nullopt;
}

bool EqualMeansSameBytes(const KeyColumn &key) {
  return Call([&] {
    Oid left, right;
    op_input_types(key.equality, &left, &right);
    // The padding of character(n) depends on n, which expressions lose. One day is 24 hours, whatever
    // catalogs of minor releases before 15.5 and 16.1 say of interval_ops.
    if (left == BPCHAROID || left == INTERVALOID) return false;
    Oid const collation = OidIsValid(key.collation) ? key.collation : key.column.collation;
    // text_pattern_ops, which has the same equality, knows nothing of collations.
    if (OidIsValid(collation) && !get_collation_isdeterministic(collation)) return false;
    List *families = get_mergejoin_opfamilies(key.equality);
    for (int i = 0; i < list_length(families); ++i) {
      Oid const test = get_opfamily_proc(list_nth_oid(families, i), left, right, BTEQUALIMAGE_PROC);
      if (OidIsValid(test) && DatumGetBool(OidFunctionCall1Coll(test, collation, ObjectIdGetDatum(left))))
        return true;
    }
    return false;
  });
}

namespace {

// Whether an index of the target has these key columns first, in whatever order.
bool HasIndexThatLeadsWith(const Target &target, const std::vector<KeyColumn> &keys) {
  std::vector<AttrNumber> numbers;
  for (const KeyColumn &key : keys) numbers.push_back(key.column.number);
  const AttrNumber *const wanted = numbers.data();
  auto const count = static_cast<int>(numbers.size());
  return Call([&] {
    bool found = false;
    Relation relation = relation_open(target.oid, AccessShareLock);
    List *indexes = RelationGetIndexList(relation);
    for (int i = 0; i < list_length(indexes) && !found; ++i) {
      Relation index = index_open(list_nth_oid(indexes, i), AccessShareLock);
      Form_pg_index form = index->rd_index;
      bool leads = index->rd_rel->relam == BTREE_AM_OID && form->indisvalid && form->indnkeyatts >= count &&
                   RelationGetIndexPredicate(index) == NIL;
      for (int k = 0; k < count && leads; ++k) {
        bool is_wanted = false;
        for (int j = 0; j < count; ++j) is_wanted = is_wanted || wanted[j] == form->indkey.values[k];
        leads = is_wanted;
      }
      found = leads;
      index_close(index, AccessShareLock);
    }
    relation_close(relation, AccessShareLock);
    return found;
  });
}

bool HasRules(const Target &target) {
  return Call([&] {
    Relation relation = relation_open(target.oid, AccessShareLock);
    bool const rules = relation->rd_rules != nullptr;
    relation_close(relation, AccessShareLock);
    return rules;
  });
}

std::string DescribeRemote(const Target &target) {
  switch (Call([&] { return get_rel_relkind(target.oid); })) {
    case RELKIND_VIEW:
      return "the target is a view";
    case RELKIND_FOREIGN_TABLE:
      return "the target is a foreign table";
    default:
      return "partitions of the target are foreign tables";
  }
}

constexpr char kNoIndex[] = "a key can have several rows, and no index of the target begins with (";

// A packed ledger for a mapping whose keys have rows apart, or a full one and why it has to be.
LedgerChoice ChooseForRowsApart(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                                const QueryFacts &facts) {
  auto full = [](const std::string &reason) { return LedgerChoice{"full", reason, ""}; };
  if (target.kind != TargetKind::kLocal) return full(DescribeRemote(target));
  if (HasRules(target)) return full("the target has rules");
  std::vector<KeyColumn> named;
  std::string names, copies;
  for (const KeyColumn &key : target.keys) {
    if (!EqualMeansSameBytes(key))
      return full("values of key column \"" + key.column.name + "\" can be equal and yet differ");
    std::optional<std::string> const source = NameColumnOf(key.column.name, pattern, facts);
    if (!source) continue;
    named.push_back(key);
    names += (names.empty() ? "" : ", ") + pg::QuoteIdentifier(key.column.name);
    copies += (copies.empty() ? "" : ", ") + key.column.name + " = " + *source;
  }
  LedgerChoice const packed = {"packed", "no two keys yield the same row: " + copies, ""};
  if (named.size() == target.keys.size()) return packed;
  if (std::all_of(named.begin(), named.end(), [&](const KeyColumn &key) {
        return NameColumnOf(key.column.name, pattern, facts) == "db";
      }))
    return full(
        "a key can have several rows, and key_columns have nothing of its name by which to find them");
  if (HasIndexThatLeadsWith(target, named)) return packed;
  return {"full", kNoIndex + names + ")",
          "CREATE INDEX ON " + target.name + " (" + names + "), then SELECT redis_migrate.alter_mapping(" +
              pg::QuoteLiteral(mapping.migration) + ", " + pg::QuoteLiteral(mapping.name) +
              "): the ledger is then packed, which costs less."};
}

LedgerChoice ChooseForSharedRows(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                                 const QueryFacts &facts) {
  Mapping of_one_database = mapping;
  of_one_database.databases = std::vector<int>{0};
  if (!KeysHaveRowsApart(of_one_database, pattern, facts))
    return {"full",
            "two keys could yield the same row: not each capture, and db unless databases names a single "
            "one, stands unchanged in key_columns",
            ""};
  bool const would_be_packed = ChooseForRowsApart(mapping, pattern, target, facts).ledger == "packed";
  return {"full",
          "keys of two databases could yield the same row: databases does not name a single one, and db does "
          "not stand in key_columns",
          would_be_packed ? "If all keys are in one database, say databases => '{0}': the ledger is then "
                            "packed, which costs less."
                          : ""};
}

}  // namespace

std::optional<std::string> ColumnsOfMissingIndex(const Mapping &mapping) {
  size_t const at = mapping.ledger_reason.find(kNoIndex);
  if (at == std::string::npos) return std::nullopt;
  return mapping.ledger_reason.substr(at + strlen(kNoIndex) - 1);
}

LedgerChoice ChooseLedger(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                          const QueryFacts &facts) {
  bool const apart = KeysHaveRowsApart(mapping, pattern, facts);
  LedgerChoice choice = apart ? ChooseForRowsApart(mapping, pattern, target, facts)
                              : ChooseForSharedRows(mapping, pattern, target, facts);
  if (choice.ledger == "packed") return choice;
  if (mapping.exclusive)
    return {"none", "it is exclusive: every row of the target is its own; " + choice.reason, ""};
  if (apart && mapping.KeepsGone())
    return {"none", "no two keys yield the same row, and on_delete is 'keep'; " + choice.reason, ""};
  return choice;
}

}  // namespace prm
