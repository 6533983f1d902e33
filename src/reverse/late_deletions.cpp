#include "reverse/late_deletions.h"

#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/time.h"
#include "reverse/row_faults.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kAtOnce = 1000;

struct Deletion {
  int64 id;
  std::string pattern;
  int db;
  std::string key;
};

// The next of them, after a number.
std::vector<Deletion> ReadDeletions(const std::string &migration, const std::vector<std::string> &patterns,
                                    int64 after) {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(R"sql(SELECT late_write_id, pattern, db, key_bytes
                         FROM redis_migrate.late_write
                         WHERE migration = $1 AND pattern = ANY ($2) AND kind = 'deleted'
                             AND settled_at IS NULL AND late_write_id > $3
                         ORDER BY late_write_id
                         LIMIT $4)sql",
                                     {SqlParam::Text(migration), SqlParam::TextArray(patterns),
                                      SqlParam::Int8(after), SqlParam::Int4(kAtOnce)});
  std::vector<Deletion> deletions;
  for (uint64 i = 0; i < rows.size(); ++i)
    deletions.push_back(
        {rows[i].Int8(0), rows[i].Text(1), rows[i].Int4(2), std::string(pg::DatumBytes(rows[i].Value(3)))});
  return deletions;
}

bool IsGone(const ReverseValue &value) {
  if (!value || value->type.empty()) return false;
  return value->elements.empty() || (value->expires_at_ms && *value->expires_at_ms <= pg::NowMs());
}

// Of the keys with these names, those that no row stands for.
std::set<RowName> FindAbsent(const ReverseMapping &reverse, const std::set<RowName> &names) {
  try {
    return FindWithoutRows(reverse, names, IsGone, true);
  } catch (const QueryFault &) {
    return {};  // nobody knows what its rows stand for
  }
}

// One that has become a write meanwhile stays, as does one that live sync is just about to change: it waits
// for others of them, so to wait for it may be a deadlock. Returns those that are settled.
std::vector<int64> Settle(const std::vector<int64> &ids) {
  if (ids.empty()) return {};
  // If a crash undoes this, it is done once more; nobody finds them locked for as long as a flush takes.
  pg::SetForTransaction("synchronous_commit", "off");
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(R"sql(WITH found AS MATERIALIZED (
                         SELECT late_write_id
                         FROM redis_migrate.late_write
                         WHERE late_write_id = ANY ($1) AND kind = 'deleted' AND settled_at IS NULL
                         FOR UPDATE SKIP LOCKED)
                     UPDATE redis_migrate.late_write AS l
                     SET settled_at = clock_timestamp()
                     FROM found
                     WHERE l.late_write_id = found.late_write_id
                     RETURNING l.late_write_id)sql",
                                 {SqlParam::Int8Array(ids)});
  std::vector<int64> settled;
  for (uint64 i = 0; i < rows.size(); ++i) settled.push_back(rows[i].Int8(0));
  return settled;
}

}  // namespace

bool HasOneMapping(const std::string &migration, const std::string &pattern) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT count(*) = 1 FROM redis_migrate.mapping WHERE migration = $1 AND pattern = $2",
                      {SqlParam::Text(migration), SqlParam::Text(pattern)})[0]
      .Bool(0);
}

bool SettleLateDeletions(const std::string &migration, const std::vector<std::string> &patterns,
                         const std::function<std::vector<const ReverseMapping *>()> &find_reverses,
                         int64 &after, int64 until_ms, std::set<int64> *left) {
  bool is_all = false;
  std::optional<std::vector<const ReverseMapping *>> reverses;
  while (pg::MonotonicMs() < until_ms) {
    std::vector<Deletion> const deletions = ReadDeletions(migration, patterns, after);
    if (deletions.empty()) {
      is_all = true;
      break;
    }
    if (!reverses) reverses = find_reverses();
    Spi::Commit();
    after = deletions.back().id;
    if (left != nullptr)
      for (const Deletion &deletion : deletions) left->insert(deletion.id);
    for (const ReverseMapping *reverse : *reverses) {
      std::map<RowName, int64> ids;
      std::set<RowName> names;
      for (const Deletion &deletion : deletions)
        if (deletion.pattern == reverse->mapping.pattern)
          if (auto const name = reverse->NameOf(deletion.db, deletion.key);
              name && names.insert(*name).second)
            ids.emplace(*name, deletion.id);
      if (names.empty()) continue;
      std::vector<int64> absent;
      for (const RowName &name : FindAbsent(*reverse, names)) absent.push_back(ids.at(name));
      for (int64 const id : Settle(absent))
        if (left != nullptr) left->erase(id);
      Spi::Commit();
    }
  }
  Spi::Commit();
  return is_all;
}

}  // namespace prm
