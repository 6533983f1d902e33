#include "reverse/reverse_check.h"

#include "connect/server_clock.h"
#include "ledger/ledger.h"
#include "live/live_links.h"
#include "mapping/mapping_settings.h"
#include "pg/argument_ranges.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "pg/wait.h"
#include "redis/cluster_slots.h"
#include "reverse/ledger_names.h"
#include "sink/command_abilities.h"
#include "source/key_reply.h"
#include "source/server_abilities.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostLooks = 3;  // at a key that differs: it may be changing
constexpr long kLookAgainMs = 300;
constexpr int64 kMostMoveMs = 10000;  // of a slot of a cluster
constexpr int64 kExpiryToleranceMs = 1000;
constexpr size_t kMostShown = 5;

// Of a reply with a whole value.
redis::ReplyLimit ValueLimit() {
  return {static_cast<uint64>(pg::settings::max_value_size_kb) * 1024 + redis::kLargeReply.bytes};
}

// An expiry beyond the times of PostgreSQL is its last.
int64 AsRowsHave(int64 at_ms) { return std::min<int64>(at_ms, source::kLatestExpiryMs); }

// Before Redis 7.4 no field expires.
void ReadFieldExpiries(ServerConnection &server, const std::string &key, sink::WholeValue &value) {
  std::string const count = std::to_string(value.elements.size() / 2);
  std::vector<Bytes> command = {"HPEXPIRETIME", key, "FIELDS", count};
  for (size_t i = 0; i < value.elements.size(); i += 2) command.emplace_back(value.elements[i]);
  server->Append(command.data(), command.size(), ValueLimit());
  redis::Reply const reply = pg::ValueOrThrow(server->Receive());
  if (reply.IsError() && sink::IsUnknownCommand(reply.ErrorText())) return;
  if (reply.IsError()) throw pg::Failure(server->ToError(reply));
  for (size_t i = 0; i < reply.size(); ++i) {
    auto const at = reply.element(i).Integer();
    value.field_expiries.push_back(at && *at > 0 ? std::optional(AsRowsHave(*at)) : std::nullopt);
  }
  // As many as there are fields; nil, or none, if the key has gone.
  value.field_expiries.resize(value.elements.size() / 2);
}

// Reads a key's value as a reverse query would yield it. An absent key is an empty list. A type that no
// reverse query yields has no elements.
sink::WholeValue ReadFromRedis(ServerConnection &server, bool has_pexpiretime, const std::string &key) {
  sink::WholeValue value;
  auto ask = [&](std::initializer_list<Bytes> command) {
    return pg::ValueOrThrow(server->Command(command, ValueLimit()));
  };
  redis::Reply const type = ask({"TYPE", key});
  if (!type.IsStatus()) throw pg::Failure(server->UnknownReply("TYPE"));
  value.type = std::string(*type.StatusText());
  if (value.type == "none") return {"list"};
  if (value.type == "string") {
    redis::Reply const reply = ask({"GET", key});
    if (!reply.String() && !reply.IsNil()) throw pg::Failure(server->UnknownReply("GET"));
    if (auto const text = reply.String()) value.elements.emplace_back(*text);
  } else {
    std::vector<Bytes> command;
    if (value.type == "hash") command = {"HGETALL", key};
    if (value.type == "list") command = {"LRANGE", key, "0", "-1"};
    if (value.type == "set") command = {"SMEMBERS", key};
    if (value.type == "zset") command = {"ZRANGE", key, "0", "-1", "WITHSCORES"};
    if (command.empty()) return value;
    server->Append(command.data(), command.size(), ValueLimit());
    redis::Reply const reply = pg::ValueOrThrow(server->Receive());
    if (reply.IsError()) throw pg::Failure(server->ToError(reply));
    if (!reply.IsArray()) throw pg::Failure(server->UnknownReply(command[0]));
    for (size_t i = 0; i < reply.size(); ++i) {
      auto const element = reply.element(i).String();
      if (!element) throw pg::Failure(server->UnknownReply(command[0]));
      value.elements.emplace_back(*element);
    }
  }
  if (value.type == "hash" && !value.elements.empty()) ReadFieldExpiries(server, key, value);
  source::ExpiryReader expiry(*server, has_pexpiretime);
  source::Entry entry;
  entry.key = key;
  expiry.Ask(key);
  int64 const at_ms = pg::ValueOrThrow(expiry.Receive(entry));
  if (at_ms == source::kNoKey) return {"list"};  // it has expired meanwhile
  if (at_ms >= 0) value.expires_at_ms = AsRowsHave(at_ms);
  return value;
}

// Alike for the spellings of one number: 1e3, 1000.0; and for 0 and -0, which Redis does not tell apart in
// small sets.
std::string ShownScore(const std::string &score) {
  char text[32];
  snprintf(text, sizeof text, "%.17g", std::strtod(score.c_str(), nullptr) + 0.0);
  return text;
}

// Elements in an order that does not matter to the type, scores as numbers.
std::vector<std::pair<std::string, std::string>> Ordered(const sink::WholeValue &value) {
  std::vector<std::pair<std::string, std::string>> pairs;
  size_t const width = value.type == "hash" || value.type == "zset" ? 2 : 1;
  for (size_t i = 0; i + width <= value.elements.size(); i += width)
    pairs.emplace_back(value.elements[i], width == 2 ? value.elements[i + 1] : "");
  if (value.type == "zset")
    for (auto &[member, score] : pairs) score = ShownScore(score);
  if (value.type != "list") std::sort(pairs.begin(), pairs.end());
  return pairs;
}

size_t HashOf(const sink::WholeValue &value) {
  size_t hash = std::hash<std::string>()(value.type);
  for (const auto &[element, score] : Ordered(value))
    hash = (hash * 31 + std::hash<std::string>()(element)) * 31 + std::hash<std::string>()(score);
  return hash;
}

// Of a hash: when fields expire that do.
std::map<std::string, int64> FieldExpiries(const sink::WholeValue &value) {
  std::map<std::string, int64> expiries;
  for (size_t i = 0; i < value.field_expiries.size(); ++i)
    if (value.field_expiries[i]) expiries[value.elements[2 * i]] = *value.field_expiries[i];
  return expiries;
}

// Without the fields that have expired: their rows may still be there.
sink::WholeValue Living(const sink::WholeValue &value, int64 now_ms) {
  if (value.field_expiries.empty()) return value;
  sink::WholeValue living{value.type, {}, value.expires_at_ms, {}};
  for (size_t i = 0; i < value.field_expiries.size(); ++i) {
    if (value.field_expiries[i] && *value.field_expiries[i] <= now_ms) continue;
    living.elements.push_back(value.elements[2 * i]);
    living.elements.push_back(value.elements[2 * i + 1]);
    living.field_expiries.push_back(value.field_expiries[i]);
  }
  return living;
}

bool ExpireAlike(const sink::WholeValue &a, const sink::WholeValue &b) {
  std::map<std::string, int64> const of_a = FieldExpiries(a), of_b = FieldExpiries(b);
  return of_a.size() == of_b.size() &&
         std::equal(of_a.begin(), of_a.end(), of_b.begin(), [](const auto &one, const auto &other) {
           return one.first == other.first && std::abs(one.second - other.second) <= kExpiryToleranceMs;
         });
}

// Of a table and its partitions, of which a parent has no count before ANALYZE. A page of a table that was
// never counted has one row at least.
double EstimateRows(Oid table) {
  auto const rows = Spi::Execute(R"sql(
      WITH RECURSIVE tree AS (
          SELECT $1 AS oid
          UNION
          SELECT i.inhrelid
          FROM pg_catalog.pg_inherits AS i JOIN tree ON i.inhparent OPERATOR(pg_catalog.=) tree.oid)
      SELECT coalesce(pg_catalog.sum(
                 (pg_catalog.pg_relation_size(c.oid) OPERATOR(pg_catalog./) $2)::pg_catalog.float8
                 OPERATOR(pg_catalog.*)
                 CASE WHEN c.relpages OPERATOR(pg_catalog.>) 0
                      THEN c.reltuples::pg_catalog.float8 OPERATOR(pg_catalog./) c.relpages::pg_catalog.float8
                      ELSE 1 END), 0)
      FROM tree JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) tree.oid
      WHERE c.relkind OPERATOR(pg_catalog.<>) 'p')sql",
                                 {SqlParam::OidOf(table), SqlParam::Int8(BLCKSZ)});
  return DatumGetFloat8(rows[0].Value(0));
}

// now_ms: by the clock of the server, as which keys have expired.
bool IsSame(const sink::WholeValue &of_rows, const sink::WholeValue &of_redis, int64 now_ms) {
  sink::WholeValue const a = Living(of_rows, now_ms), b = Living(of_redis, now_ms);
  auto is_gone = [&](const sink::WholeValue &value) {
    return value.elements.empty() || (value.expires_at_ms && *value.expires_at_ms <= now_ms);
  };
  if (is_gone(a) && is_gone(b)) return true;
  if (a.type != b.type || Ordered(a) != Ordered(b) || !ExpireAlike(a, b)) return false;
  if (!a.expires_at_ms || !b.expires_at_ms) return a.expires_at_ms == b.expires_at_ms;
  return std::abs(*a.expires_at_ms - *b.expires_at_ms) <= kExpiryToleranceMs;
}

}  // namespace

// Names of rows from anywhere in the target.
ReverseCheck::Names ReverseCheck::SampleNames(const ReverseMapping &reverse, int keys) {
  RequireTarget(reverse);
  std::string columns, shown;
  for (const KeyColumn &name : reverse.names) {
    std::string const comma = columns.empty() ? "" : ", ", column = pg::QuoteIdentifier(name.column.name);
    columns += comma + column;
    shown += comma + "pg_catalog.concat(" + column + ")";
  }
  double const rows = EstimateRows(reverse.target.oid);
  // Chooses from ten times as many rows, as those of one page are alike, and from all of a small table.
  double const percent = rows < 10000 ? 100 : std::min(100.0, 1000.0 * keys / rows);
  MappingSettings const settings(reverse.mapping);
  CanonicalText canonical;
  canonical.Set("row_security", "off");
  auto found = Spi::Execute("SELECT " + shown + " FROM " + reverse.target.name + " TABLESAMPLE system (" +
                                std::to_string(percent) + ") GROUP BY " + columns +
                                " ORDER BY pg_catalog.random() LIMIT $1",
                            {SqlParam::Int4(keys)});
  Names names, chosen;
  for (uint64 i = 0; i < found.size(); ++i) {
    RowName texts;
    for (size_t j = 0; j < reverse.names.size(); ++j) texts.push_back(found[i].Text(static_cast<int>(j)));
    chosen.insert(std::move(texts));
  }
  if (reverse.ledger) {
    Names named;
    for (auto &[row, name] : reverse.ledger->FindNames(reverse, chosen)) named.insert(std::move(name));
    chosen = std::move(named);
  }
  for (const RowName &row : chosen)
    if (auto name = reverse.Canonical(row)) names.insert(std::move(*name));
  return names;
}

// The names whose keys differ from their rows. Commits before it asks Redis.
ReverseCheck::Differences ReverseCheck::FindDiffering(const ReverseMapping &reverse,
                                                      const Differences &before) {
  Differences differing;
  int64 const until_ms = pg::MonotonicMs() + kMostMoveMs;
  Names left;
  for (const auto &[name, difference] : before) left.insert(name);
  while (!left.empty()) {
    std::map<RowName, ReverseValue> values;
    Names unknown;
    {
      pg::SnapshotScope const snapshot;
      int64 bytes = 0;
      values = ReadReverseRows(reverse, left, bytes, &unknown);
    }
    Spi::Commit();
    Names postponed;
    for (const RowName &name : left) {
      auto const found = values.find(name);
      if (found != values.end() && !found->second) {
        postponed.insert(name);
        continue;
      }
      if (found != values.end() && !FieldExpiries(*found->second).empty())
        expiring_.insert(reverse.mapping.name);
      if ((found != values.end() && found->second->type.empty()) || unknown.count(name) > 0) {
        // The reverse feed leaves its key alone.
        --chosen_;
        continue;
      }
      sink::WholeValue const gone{"list"};
      std::optional<sink::WholeValue> const value = Read(reverse, name, until_ms);
      if (!value) {
        postponed.insert(name);
        continue;
      }
      if (IsSame(found == values.end() ? gone : *found->second, *value, now_ms_)) continue;
      const Difference &last = before.at(name);
      size_t const hash = HashOf(*value);
      differing[name] = {hash, last.looks > 0 && last.hash == hash ? last.looks + 1 : 1};
    }
    left = std::move(postponed);
  }
  return differing;
}

ReverseCheck::ReverseCheck(const std::string &server, std::vector<ReverseMapping> reverses)
    : server_(server), reverses_(std::move(reverses)), differences_(reverses_.size()) {}

void ReverseCheck::Connect() {
  servers_.clear();
  topology_ = TopologyOf(server_, GetUserId());
  if (!topology_) servers_.push_back({std::make_unique<ServerConnection>(server_, GetUserId())});
  if (topology_)
    for (const redis::ClusterShard &shard : topology_->shards)
      servers_.push_back({std::make_unique<ServerConnection>(server_, GetUserId(),
                                                             std::vector<std::string>{shard.master.id})});
  Spi::Commit();
  for (Server &server : servers_) {
    if (!server.connection->is_open()) continue;
    server.has_pexpiretime = pg::ValueOrThrow(source::MayUse(**server.connection, {"PEXPIRETIME", ""}));
    server.clock_ahead_ms = FetchClockAhead(**server.connection);
  }
}

ReverseCheck::Server &ReverseCheck::ServerOf(const std::string &key) {
  size_t number = 0;
  if (topology_) {
    size_t const slot = redis::KeySlot(key);
    while (number + 1 < servers_.size() && !topology_->shards[number].slots.test(slot)) ++number;
  }
  if (!servers_[number].connection->is_open())
    throw pg::Failure(ERRCODE_CANNOT_CONNECT_NOW, "a master of the cluster has just lost its slots");
  return servers_[number];
}

// Nothing: its slot was elsewhere, or is being moved.
std::optional<sink::WholeValue> ReverseCheck::Read(const ReverseMapping &reverse, const RowName &name,
                                                   int64 until_ms) {
  try {
    std::string const key = reverse.KeyOf(name);
    Server &server = ServerOf(key);
    if (int const db = reverse.DbOf(name); !topology_ && server.db != db) {
      pg::ValueOrThrow((*server.connection)->Command({"SELECT", std::to_string(db)}));
      server.db = db;
    }
    sink::WholeValue value = ReadFromRedis(*server.connection, server.has_pexpiretime, key);
    now_ms_ = pg::NowMs() + server.clock_ahead_ms;
    return value;
  } catch (const pg::Failure &failure) {
    // Not the detail: it has the beginning of the value.
    if (failure.sqlstate() == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
      throw pg::Failure(failure.sqlstate(), failure.message(),
                        "The key is " + reverse.MaskedKeyOf(name) +
                            ", with letters and digits masked, of mapping \"" + reverse.mapping.name + "\".",
                        "Raise pg_redis_migrate.max_value_size, or check other families by their pattern.");
    bool const may_move = topology_ && failure.sqlstate() == ERRCODE_CANNOT_CONNECT_NOW;
    if (!may_move || pg::MonotonicMs() >= until_ms) throw;
  }
  pg::Sleep(kLookAgainMs);
  Connect();
  return std::nullopt;
}

void ReverseCheck::Choose(int keys) {
  chosen_ = 0;
  for (size_t i = 0; i < reverses_.size(); ++i) {
    {
      pg::SnapshotScope const snapshot;
      differences_[i].clear();
      for (const RowName &name : SampleNames(reverses_[i], keys)) differences_[i][name];
    }
    Spi::Commit();
    chosen_ += static_cast<int64>(differences_[i].size());
  }
}

int64 ReverseCheck::Compare(int looks) {
  if (servers_.empty()) Connect();
  int64 differing = 0;
  for (int look = 0; look < looks && (look == 0 || differing > 0); ++look) {
    if (look > 0) pg::Sleep(kLookAgainMs);
    differing = 0;
    for (size_t i = 0; i < reverses_.size(); ++i) {
      if (!differences_[i].empty()) differences_[i] = FindDiffering(reverses_[i], differences_[i]);
      differing += static_cast<int64>(differences_[i].size());
    }
  }
  return differing;
}

int64 ReverseCheck::certain(int looks) const {
  int64 certain = 0;
  for (const Differences &of : differences_)
    certain +=
        std::count_if(of.begin(), of.end(), [&](const auto &found) { return found.second.looks >= looks; });
  return certain;
}

std::vector<ReverseCheck::Differing> ReverseCheck::differing() const {
  std::vector<Differing> all;
  for (size_t i = 0; i < reverses_.size(); ++i) {
    if (differences_[i].empty()) continue;
    std::string shown;
    size_t count = 0;
    for (const auto &[name, difference] : differences_[i])
      if (++count <= kMostShown) shown += (count > 1 ? ", " : "") + reverses_[i].MaskedKeyOf(name);
    all.push_back({reverses_[i].mapping.name, static_cast<int64>(differences_[i].size()), shown});
  }
  return all;
}

void ReverseCheck::WarnOfFieldExpiries() {
  if (expiring_.empty()) return;
  std::set<std::string> addresses;
  for (const Server &server : servers_) {
    if (!server.connection->is_open()) continue;  // it has no slots
    if (!pg::ValueOrThrow(sink::AskAbilities(**server.connection)).has_field_expiries)
      addresses.insert((*server.connection)->address());
  }
  if (addresses.empty()) return;
  std::string list;
  for (const std::string &mapping : expiring_) list += (list.empty() ? "\"" : ", \"") + mapping + "\"";
  pg::Report(
      WARNING,
      "Redis at " + *addresses.begin() + " takes no HPEXPIREAT, and mappings " + list +
          " have rows of fields that expire",
      "The reverse feed rejects the keys of such rows: they stay in Redis as they are.",
      "Redis has the command from 7.4 on, Valkey from 9.0; the user of the migration needs the right to it.");
}

}  // namespace prm

// redis_migrate.check_reverse(migration text, pattern text, keys integer, INOUT checked bigint, INOUT
// differing bigint): see the SQL comment. Errors: 2D000 in a transaction block, 42704, 42501 not the owner,
// 22023 for keys out of range, 54000 for a value in Redis beyond max_value_size, 55000 with the first
// problem, those of reverse queries and of the server.
PRM_FUNCTION(check_reverse) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.check_reverse commits before it asks Redis");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  int const keys = pg::IntegerArgument(fcinfo, 2, "keys", 1, INT32_MAX);
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
    ReverseCheck check(migration.server, reverses);
    check.Choose(keys);
    differing = check.Compare(kMostLooks);
    checked = check.chosen();
    for (const ReverseCheck::Differing &of : check.differing())
      pg::Report(WARNING,
                 std::to_string(of.keys) + " keys of mapping \"" + of.mapping +
                     "\" are not what its rows would write back",
                 "Letters and digits are masked: " + of.shown + ".");
    check.WarnOfFieldExpiries();
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
