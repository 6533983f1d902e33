// Compares what rows would write back with what Redis has.
#include "ledger/ledger.h"
#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "pg/wait.h"
#include "reverse/reverse_mapping.h"
#include "reverse/reverse_sender.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostLooks = 3;  // at a key that differs: it may be changing
constexpr long kLookAgainMs = 300;
constexpr int64 kExpiryToleranceMs = 1000;
constexpr size_t kMostShown = 5;

using Names = std::set<RowName>;

// Names of rows from anywhere in the target.
Names SampleNames(const ReverseMapping &reverse, int keys) {
  std::string columns, shown;
  for (const KeyColumn &name : reverse.names) {
    std::string const comma = columns.empty() ? "" : ", ", column = pg::QuoteIdentifier(name.column.name);
    columns += comma + column;
    shown += comma + "pg_catalog.concat(" + column + ")";
  }
  double const rows = DatumGetFloat8(
      Spi::Execute("SELECT pg_catalog.max(reltuples)::pg_catalog.float8 FROM pg_catalog.pg_class WHERE oid "
                   "OPERATOR(pg_catalog.=) $1",
                   {SqlParam::OidOf(reverse.target.oid)})[0]
          .Value(0));
  // Of ten times as many rows, as those of one page are alike; of a small table of all.
  double const percent = rows < 10000 ? 100 : std::min(100.0, 1000.0 * keys / rows);
  MappingSettings const settings(reverse.mapping);
  CanonicalText canonical;
  canonical.Set("row_security", "off");
  auto found = Spi::Execute("SELECT " + shown + " FROM " + reverse.target.name + " TABLESAMPLE system (" +
                                std::to_string(percent) + ") GROUP BY " + columns +
                                " ORDER BY pg_catalog.random() LIMIT $1",
                            {SqlParam::Int4(keys)});
  Names names;
  for (uint64 i = 0; i < found.size(); ++i) {
    RowName texts;
    for (size_t j = 0; j < reverse.names.size(); ++j) texts.push_back(found[i].Text(static_cast<int>(j)));
    if (auto name = reverse.Canonical(std::move(texts))) names.insert(std::move(*name));
  }
  return names;
}

// What Redis has of a key, as a reverse query would have it; an empty list: nothing. A type that no reverse
// query yields has no elements.
redis::WholeValue ReadFromRedis(ServerConnection &server, const std::string &key) {
  redis::WholeValue value;
  auto ask = [&](std::initializer_list<Bytes> command) {
    return pg::ValueOrThrow(server->Command(command, redis::kLargeReply));
  };
  value.type = std::string(ask({"TYPE", key}).StatusText().value_or(""));
  if (value.type == "none") return {"list", {}, std::nullopt};
  if (value.type == "string") {
    redis::Reply const reply = ask({"GET", key});
    if (auto const text = reply.String()) value.elements.emplace_back(*text);
  } else {
    std::vector<Bytes> command;
    if (value.type == "hash") command = {"HGETALL", key};
    if (value.type == "list") command = {"LRANGE", key, "0", "-1"};
    if (value.type == "set") command = {"SMEMBERS", key};
    if (value.type == "zset") command = {"ZRANGE", key, "0", "-1", "WITHSCORES"};
    if (command.empty()) return value;
    server->Append(command.data(), command.size(), redis::kLargeReply);
    redis::Reply const reply = pg::ValueOrThrow(server->Receive());
    if (reply.IsError()) throw pg::Failure(server->ToError(reply));
    for (size_t i = 0; i < reply.size(); ++i)
      if (auto const element = reply.element(i).String()) value.elements.emplace_back(*element);
  }
  if (auto const left = ask({"PTTL", key}).Integer(); left && *left >= 0)
    value.expires_at_ms = pg::NowMs() + *left;
  return value;
}

// Elements in an order that does not matter to the type, scores as numbers.
std::vector<std::pair<std::string, std::string>> Ordered(const redis::WholeValue &value) {
  std::vector<std::pair<std::string, std::string>> pairs;
  size_t const width = value.type == "hash" || value.type == "zset" ? 2 : 1;
  for (size_t i = 0; i + width <= value.elements.size(); i += width)
    pairs.emplace_back(value.elements[i], width == 2 ? value.elements[i + 1] : "");
  if (value.type == "zset")
    for (auto &[member, score] : pairs) score = std::to_string(std::strtod(score.c_str(), nullptr));
  if (value.type != "list") std::sort(pairs.begin(), pairs.end());
  return pairs;
}

bool IsSame(const redis::WholeValue &a, const redis::WholeValue &b) {
  int64 const now_ms = pg::NowMs();
  auto is_gone = [&](const redis::WholeValue &value) {
    return value.elements.empty() || (value.expires_at_ms && *value.expires_at_ms <= now_ms);
  };
  if (is_gone(a) && is_gone(b)) return true;
  if (a.type != b.type || Ordered(a) != Ordered(b)) return false;
  if (!a.expires_at_ms || !b.expires_at_ms) return a.expires_at_ms == b.expires_at_ms;
  return std::abs(*a.expires_at_ms - *b.expires_at_ms) <= kExpiryToleranceMs;
}

// The names of a sample whose keys differ from their rows. Commits before it asks Redis.
Names FindDiffering(const ReverseMapping &reverse, ServerConnection &server, const Names &names) {
  Names differing;
  pg::ValueOrThrow(server->Command({"SELECT", std::to_string(reverse.db)}));
  for (Names left = names; !left.empty();) {
    std::map<RowName, ReverseValue> values;
    {
      pg::SnapshotScope const snapshot;
      int64 bytes = 0;
      values = ReadReverseRows(reverse, left, bytes);
    }
    Spi::Commit();
    Names postponed;
    for (const RowName &name : left) {
      auto const found = values.find(name);
      if (found != values.end() && !found->second) {
        postponed.insert(name);
        continue;
      }
      redis::WholeValue const gone{"list", {}, std::nullopt};
      if (!IsSame(found == values.end() ? gone : *found->second, ReadFromRedis(server, reverse.KeyOf(name))))
        differing.insert(name);
    }
    left = std::move(postponed);
  }
  return differing;
}

}  // namespace
}  // namespace prm

// redis_migrate.check_reverse(migration text, pattern text, keys integer, INOUT checked bigint, INOUT
// differing bigint): see the SQL comment. Errors: 2D000 in a transaction block, 42704, 42501 not the owner,
// 22023 for keys below 1, 55000 with the first problem, those of reverse queries and of the server.
PRM_FUNCTION(check_reverse) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.check_reverse commits before it asks Redis");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  int const keys = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
  if (keys < 1) throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "keys must be at least 1");
  int64 checked = 0, differing = 0;
  {
    pg::Spi spi(true);
    Migration const migration = LoadMigration(name);
    RequireSource(migration, "scan");
    std::map<std::string, ReverseProblem> problems;
    std::vector<ReverseMapping> const reverses = FindReverses(migration, pattern, problems);
    if (!problems.empty())
      throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "rows of mapping \"" + problems.begin()->first +
                            "\" cannot become keys: " + problems.begin()->second.problem,
                        "", problems.begin()->second.hint);
    Spi::Commit();
    ServerConnection server(migration.server, GetUserId());
    for (const ReverseMapping &reverse : reverses) {
      Names names;
      {
        pg::SnapshotScope const snapshot;
        names = SampleNames(reverse, keys);
      }
      Spi::Commit();
      checked += static_cast<int64>(names.size());
      for (int look = 0; look < kMostLooks && !names.empty(); ++look) {
        if (look > 0) pg::Sleep(kLookAgainMs);
        names = FindDiffering(reverse, server, names);
      }
      if (names.empty()) continue;
      differing += static_cast<int64>(names.size());
      std::string shown;
      size_t count = 0;
      for (const RowName &differs : names)
        if (++count <= kMostShown) shown += (count > 1 ? ", " : "") + reverse.MaskedKeyOf(differs);
      pg::Report(WARNING,
                 std::to_string(names.size()) + " keys of mapping \"" + reverse.mapping.name +
                     "\" are not what its rows would write back",
                 "Letters and digits are masked: " + shown + ".");
    }
  }
  return pg::Call([&] {
    TupleDesc desc = nullptr;
    if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "redis_migrate.check_reverse returns two columns");
    Datum values[] = {Int64GetDatum(checked), Int64GetDatum(differing)};
    bool nulls[] = {false, false};
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
  });
}
