#include "mapping/ledger_mark.h"

#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/plain_names.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

bool HasSecret() {
  return Spi::Execute("SELECT EXISTS (SELECT FROM redis_migrate.ledger_secret)", {})[0].Bool(0);
}

std::vector<std::string> EnumLabels(Oid type) {
  pg::Rows const rows =
      Spi::Execute("SELECT enumlabel::text FROM pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder",
                   {SqlParam::OidOf(type)});
  std::vector<std::string> labels;
  for (uint64 i = 0; i < rows.size(); ++i) labels.push_back(rows[i].Text(0));
  return labels;
}

// The facts on which the hashes of key columns depend, in words: the types, as far as RowHasher tells them
// apart, and the labels of enums, which it hashes. Entries fit as long as every fact stays true.
std::vector<std::string> FactsOf(const Target &target) {
  pg::PlainNames const plain;
  pg::AsExtensionOwner as_owner;
  std::vector<std::string> facts;
  for (const KeyColumn &key : target.keys) {
    std::string const column = pg::QuoteIdentifier(key.column.name) + " ";
    int32 typmod = key.column.typmod;
    Oid const type = pg::Call([&] { return getBaseTypeAndTypmod(key.column.type, &typmod); });
    if (type == INT2OID || type == INT4OID || type == INT8OID) {
      facts.push_back(column + "integer");
    } else if (type == TEXTOID || type == VARCHAROID) {
      facts.push_back(column + "text");
    } else if (pg::Call([&] { return get_typtype(type); }) == TYPTYPE_ENUM) {
      facts.push_back(column + "enum");
      for (const std::string &label : EnumLabels(type))
        facts.push_back(column + "enum label " + pg::QuoteLiteral(label));
    } else {
      // Fewer digits of a timestamp are another value.
      facts.push_back(column + pg::Call([&] {
                        return const_cast<const char *>(format_type_extended(
                            type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
                      }));
    }
  }
  return facts;
}

// Names the parts of the mark that are no longer true; empty: none.
std::string Outdated(const Mapping &mapping, const std::vector<std::string> &facts) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT coalesce(string_agg(marked, ', '), '')
                   FROM redis_migrate.mapping, unnest(ledger_keys) AS marked
                   WHERE mapping_id = $1 AND marked <> ALL ($2))sql",
             {SqlParam::Int8(mapping.id), SqlParam::TextArray(facts)})[0]
      .Text(0);
}

std::string Listed(const std::vector<std::string> &facts) {
  std::string list;
  for (const std::string &fact : facts) list += (list.empty() ? "" : ", ") + fact;
  return list;
}

}  // namespace

void EnsureLedgerSecret() {
  pg::AsExtensionOwner as_owner;
  if (HasSecret()) return;
  char drawn[16];
  if (!pg_strong_random(drawn, sizeof drawn))
    throw pg::Failure(ERRCODE_INTERNAL_ERROR, "could not draw the secret of the ledgers");
  // Waits for whoever draws it at the same time.
  Spi::Execute("INSERT INTO redis_migrate.ledger_secret (secret) VALUES ($1) ON CONFLICT DO NOTHING",
               {SqlParam::Bytea(Bytes(drawn, sizeof drawn))});
  if (!HasSecret())
    throw pg::Failure(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another transaction draws the secret of the ledgers", "", "Try again.");
}

LedgerMark ReadLedgerMark(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::Execute(
      R"sql(SELECT CASE WHEN EXISTS (SELECT FROM redis_migrate.ledger_secret)
                        THEN ledger_mark = redis_migrate.row_hash(mapping_id) ELSE false END
            FROM redis_migrate.mapping
            WHERE mapping_id = $1 AND ledger_mark IS NOT NULL)sql",
      {SqlParam::Int8(mapping_id)});
  if (rows.size() == 0) return LedgerMark::kNone;
  return rows[0].Bool(0) ? LedgerMark::kCurrent : LedgerMark::kOtherSecret;
}

void SetLedgerMark(const Mapping &mapping) {
  // The full ledger has the keys themselves.
  std::optional<std::vector<std::string>> facts;
  if (mapping.ledger == "packed") facts = FactsOf(LoadTarget(mapping));
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.mapping
            SET ledger_mark = redis_migrate.row_hash(mapping_id), ledger_keys = $2
            WHERE mapping_id = $1)sql",
      {SqlParam::Int8(mapping.id), SqlParam::OptionalTextArray(facts)});
}

bool HasWorthlessEntries(const Mapping &old, const Mapping &mapping) {
  if (mapping.target != old.target || mapping.key_columns != old.key_columns) return true;
  if (mapping.ledger != "full" || old.ledger != "full") {
    // Entries of a packed ledger do not name their keys: they hold only for one pattern, and for one way in
    // which its keys name rows.
    if (mapping.ledger != "packed" || mapping.pattern != old.pattern) return true;
    if (old.ledger != "full" && mapping.ledger_reason != old.ledger_reason) return true;
  }
  return old.ledger == "packed" && (ReadLedgerMark(mapping.id) == LedgerMark::kOtherSecret ||
                                    !Outdated(mapping, FactsOf(LoadTarget(mapping))).empty());
}

void RequireFittingKeyColumns(const Mapping &mapping, const Target &target) {
  std::vector<std::string> const facts = FactsOf(target);
  if (std::string const outdated = Outdated(mapping, facts); !outdated.empty())
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "the packed ledger of mapping \"" + mapping.name +
                          "\" no longer fits the key columns of " + target.name,
                      "When its entries were made: " + outdated + ". Now: " + Listed(facts) +
                          ". Nothing tells which rows they are of.",
                      "Undo the change, or " + HintToBeginAnew(mapping));
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      "UPDATE redis_migrate.mapping SET ledger_keys = $2 WHERE mapping_id = $1 AND ledger_keys <> $2",
      {SqlParam::Int8(mapping.id), SqlParam::TextArray(facts)});
}

std::string HintToBeginAnew(const Mapping &mapping) {
  return "let the ledger begin anew by SELECT redis_migrate.alter_mapping(" +
         pg::QuoteLiteral(mapping.migration) + ", " + pg::QuoteLiteral(mapping.name) +
         "): rows become the mapping's again when a run meets their keys; those whose keys are gone stay.";
}

}  // namespace prm
