#include "store/prepared_mapping.h"

#include "mapping/expiry_columns.h"
#include "mapping/named_errors.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

namespace {

std::string FailedChecksStatement(const Mapping &mapping) {
  std::string columns, any_failed;
  for (const Check &check : mapping.checks) {
    std::string const failed = "((" + check.condition + "\n) IS NOT TRUE)";
    columns += ", " + failed;
    any_failed += (any_failed.empty() ? "" : " OR ") + failed;
  }
  return "SELECT redis_row, redis_entry" + columns + " FROM redis_rows WHERE " + any_failed;
}

std::string FoldedStatement(const Target &target) {
  std::string keys;
  for (const KeyColumn &key : target.keys)
    keys += (keys.empty() ? "" : ", ") + key.Collated(pg::QuoteIdentifier(key.column.name));
  return "SELECT redis_row FROM (SELECT redis_row, pg_catalog.row_number() OVER (PARTITION BY " + keys +
         " ORDER BY redis_entry, redis_row) AS n FROM redis_rows) AS ranked WHERE n OPERATOR(pg_catalog.>) 1";
}

}  // namespace

MappingState::MappingState(const Mapping *m, const KeyPattern &pattern)
    : mapping(m), shape(pattern, ExpandFromName(m->expand)) {}

MappingState::~MappingState() = default;

PreparedMapping &MappingState::Prepare() {
  if (prepared != nullptr && !prepared->IsCurrent()) prepared.reset();
  if (prepared == nullptr)
    NamingMapping(*mapping, [&] { prepared = std::make_unique<PreparedMapping>(*this); });
  prepared->writer.set_expects_new_rows(expects_new_rows);
  prepared->writer.set_inserts_in_bulk(inserts_in_bulk);
  return *prepared;
}

void MappingState::Forget() { prepared.reset(); }

PreparedMapping::PreparedMapping(MappingState &s)
    : state(s),
      mapping(*s.mapping),
      target(LoadTarget(mapping)),
      query(mapping, s.shape, target),
      writer(mapping, target, query.facts().columns),
      journal(mapping, target),
      failed_checks(FailedChecksStatement(mapping)),
      folded(FoldedStatement(target)),
      notes_inserts(mapping.journal && mapping.ledger != "packed" && target.kind == TargetKind::kLocal &&
                    !HasTriggers(target)) {
  if (mapping.ledger == "full") ledger.emplace(mapping, target, ExpiryColumns(query.facts()));
  if (mapping.ledger == "packed") packed.emplace(mapping, target, query);
  writer.set_journal(&journal);
  if (ledger) ledger->set_journal(&journal);
  if (packed) packed->set_journal(&journal);
  if (!s.target_seen) {
    s.target_seen = true;
    s.expects_new_rows = target.kind == TargetKind::kLocal &&
                         !Spi::Execute("SELECT EXISTS (SELECT FROM " + target.name + ")")[0].Bool(0);
  }
  target.AddTo(watch);
  query.AddTo(watch);
  watch.Narrow();
}

bool PreparedMapping::TakesElements(rdb::ValueType type) const {
  const QueryFacts &facts = query.facts();
  if (!packed || !packed->FindsElements(type) || !facts.is_row_by_row) return false;
  if (mapping.types &&
      std::find(mapping.types->begin(), mapping.types->end(), rdb::TypeName(type)) == mapping.types->end())
    return false;
  // A change of an element does not tell these.
  const std::vector<BatchColumn> &columns = state.shape.columns();
  for (size_t i = 0; i < columns.size(); ++i) {
    if (!facts.needed[i]) continue;
    switch (columns[i].content) {
      case Content::kPosition:
      case Content::kOrdinal:
        if (type != rdb::ValueType::kList) return false;
        break;
      case Content::kExpiresAt:
      case Content::kPayload:
        return false;
      default:
        break;
    }
  }
  return true;
}

bool PreparedMapping::IsCurrent() const {
  pg::Call([&] { LockRelationOid(target.oid, AccessShareLock); });
  query.Lock();
  return !watch.changed() && query.IsCurrent();
}

}  // namespace prm
