#include "audit/audit_record.h"

#include <cmath>

#include "audit/suggestion.h"
#include "core/printable.h"
#include "discover/framework_layout.h"
#include "pg/encoding.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/owner.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::string JsonObject(const std::map<std::string, int64> &counts) {
  std::string json = "{";
  for (const auto &[name, count] : counts) {
    // The names are ours or Redis' own and need no escaping.
    std::string plain;
    for (char c : Printable(name))
      if (c != '"' && c != '\\') plain += c;
    json += (json.size() > 1 ? ", " : "") + ("\"" + plain + "\": ") + std::to_string(count);
  }
  return json + "}";
}

SqlParam OptionalInt8(const std::optional<int64> &value) {
  return value ? SqlParam::Int8(*value) : SqlParam{INT8OID, 0, true};
}

// Scales `counted` of `asked` keys to all keys.
int64 Scale(uint64_t counted, uint64_t asked, uint64_t keys) {
  if (asked == 0 || asked == keys) return static_cast<int64>(counted);
  return static_cast<int64>(
      std::llround(static_cast<double>(counted) * static_cast<double>(keys) / static_cast<double>(asked)));
}

std::string TtlSpread(const FamilyStats &stats) {
  constexpr const char *kNames[] = {"< 1 hour", "< 1 day", "< 7 days", "< 30 days", ">= 30 days"};
  static_assert(std::size(kNames) == FamilyStats::kTtlBuckets);
  std::string json = "{";
  for (size_t i = 0; i < FamilyStats::kTtlBuckets; ++i) {
    if (stats.ttl_buckets[i] == 0) continue;
    json += (json.size() > 1 ? ", " : "") + ("\"" + std::string(kNames[i]) + "\": ") +
            std::to_string(stats.ttl_buckets[i]);
  }
  return json + "}";
}

int64 OddKeys(const Family &family) {
  uint64_t odd = 0;
  for (const auto &[reason, keys] : family.odd) odd += keys;
  return static_cast<int64>(odd);
}

std::optional<int64> Least(const Range &range) {
  return range.count > 0 ? std::optional<int64>(range.least) : std::nullopt;
}
std::optional<int64> Greatest(const Range &range) {
  return range.count > 0 ? std::optional<int64>(range.greatest) : std::nullopt;
}

// Converts text to the database's encoding: patterns are valid UTF-8 without zero bytes.
std::string ForServer(const std::string &text) {
  std::string scratch;
  const std::optional<Bytes> converted = pg::TextFromUtf8(text, scratch);
  return converted ? std::string(*converted) : Printable(text, text.size());
}

}  // namespace

AuditRecord::AuditRecord(const AuditParameters &parameters, Datum max_duration, bool has_max_duration)
    : server_(parameters.server) {
  Oid const user = GetUserId();
  pg::ClaimOwnership(user);
  pg::AsExtensionOwner as_owner;
  auto row = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.audit
                (server, owner, pid, sample, max_duration, databases, max_rate)
            VALUES ($1, redis_migrate.stamp_owner($2), pg_backend_pid(), $3, $4, $5, $6)
            RETURNING audit_id)sql",
      {SqlParam::Text(parameters.server), SqlParam::OidOf(user),
       parameters.sample ? SqlParam{FLOAT8OID, Float8GetDatum(*parameters.sample), false}
                         : SqlParam{FLOAT8OID, 0, true},
       SqlParam{INTERVALOID, max_duration, !has_max_duration}, SqlParam::Int4Array(parameters.databases),
       parameters.max_rate ? SqlParam::Int4(*parameters.max_rate) : SqlParam{INT4OID, 0, true}});
  id_ = row[0].Int8(0);
}

void AuditRecord::SetServer(const std::string &version, const std::string &policy, int64 dbsize,
                            bool shares_integers) {
  shares_integers_ = shares_integers;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.audit
            SET redis_version = NULLIF($2, ''), maxmemory_policy = NULLIF($3, ''), dbsize = $4
            WHERE audit_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(version), SqlParam::Text(policy), SqlParam::Int8(dbsize)});
}

void AuditRecord::Save(const AuditCounts &counts) {
  int64 odd = 0;
  for (const auto &[reason, keys] : counts.odd) odd += keys;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.audit
            SET updated_at = clock_timestamp(), keys = $2, asked = $3, vanished = $4, odd = $5,
                odd_reasons = $6::jsonb, families = $7, notes = $8
            WHERE audit_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(counts.keys), SqlParam::Int8(counts.asked),
       SqlParam::Int8(counts.vanished), SqlParam::Int8(odd), SqlParam::Text(JsonObject(counts.odd)),
       SqlParam::Int4(static_cast<int32>(families_)), SqlParam::TextArray(notes_)});
}

void AuditRecord::AddFamilies(int db, bool several, const std::vector<Family> &families,
                              const std::vector<LargeKey> &largest) {
  for (const Family &family : families) {
    pg::Context context("redis_migrate audit family");
    pg::SwitchContext in_context(context.get());
    AddFamily(db, several, family);
  }
  families_ += static_cast<int64>(families.size());
  std::vector<KeyPattern> patterns;
  for (const Family &family : families) patterns.push_back(family.pattern);
  PatternSet const owners(std::move(patterns));
  int32 rank = 0;
  Match match;
  pg::AsExtensionOwner as_owner;
  for (const LargeKey &key : largest) {
    PatternSet::Owner const owner = owners.FindOwner(key.key, match);
    bool const owned = owner.fit != Fit::kNone;
    static const char kNothing[] = "";
    std::string const pattern = owned ? owners.patterns()[owner.pattern].text() : kNothing;
    std::string const masked = owned ? MaskKey(owners.patterns()[owner.pattern], key.key)
                                     : MaskKey(pg::ValueOrThrow(KeyPattern::Parse("*")), key.key);
    Spi::Execute(
        R"sql(INSERT INTO redis_migrate.audit_key
              VALUES ($1, $2, $3, NULLIF($4, ''), $5, NULLIF($6, ''), $7, $8 * interval '1 ms'))sql",
        {SqlParam::Int8(id_), SqlParam::Int4(db), SqlParam::Int4(++rank), SqlParam::Text(ForServer(pattern)),
         SqlParam::Text(masked), SqlParam::Text(key.type), SqlParam::Int8(static_cast<int64>(key.bytes)),
         OptionalInt8(key.ttl_ms && *key.ttl_ms >= 0 ? key.ttl_ms : std::nullopt)});
  }
}

void AuditRecord::AddFamily(int db, bool several, const Family &family) {
  const FamilyStats &stats = family.stats;
  Suggestion const suggestion =
      Suggest(family, server_, several ? std::optional<int>(db) : std::nullopt, tables_);
  const FrameworkLayout *layout = FindFrameworkLayout(stats);
  std::map<std::string, int64> types, kinds, odd;
  for (const auto &[type, keys] : stats.types) types[type] = static_cast<int64>(keys);
  for (size_t i = 0; i < kValueKinds; ++i)
    if (stats.kinds[i] > 0)
      kinds[ValueKindName(static_cast<ValueKind>(i))] = static_cast<int64>(stats.kinds[i]);
  for (const auto &[reason, keys] : family.odd) odd[reason] = static_cast<int64>(keys);
  std::optional<int64> bytes, with_ttl, without_ttl;
  if (stats.sized > 0) bytes = Scale(stats.bytes, stats.sized, stats.keys);
  uint64_t const told = stats.with_expiry + stats.without_expiry;
  if (told > 0) {
    with_ttl = Scale(stats.with_expiry, told, stats.keys);
    without_ttl = Scale(stats.without_expiry, told, stats.keys);
  }
  // Redis shares the objects of numbers below 10000.
  bool const shared =
      shares_integers_ && stats.Kind() == ValueKind::kInteger && stats.integer_digits.least < 5;
  Range const idle = shared ? Range() : stats.idle_s;
  bytes_ += bytes.value_or(0);
  without_expiry_ += without_ttl.value_or(0);
  std::string const example = stats.examples.empty() ? "" : MaskKey(family.pattern, stats.examples[0]);
  auto text = [](const char *value) {
    return value != nullptr ? SqlParam::Text(value) : SqlParam{TEXTOID, 0, true};
  };
  auto optional = [](const std::optional<std::string> &value) {
    return value ? SqlParam::Text(ForServer(*value)) : SqlParam{TEXTOID, 0, true};
  };
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.audit_family
            VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, $11 * interval '1 ms',
                    $12 * interval '1 ms', $13::jsonb, $14 * interval '1 s', $15 * interval '1 s', $16,
                    $17, $18::jsonb, $19, $20::jsonb, $21, $22, $23, $24, $25, $26, $27))sql",
      {SqlParam::Int8(id_),
       SqlParam::Int4(db),
       SqlParam::Text(ForServer(family.pattern.text())),
       SqlParam::Text(stats.Type()),
       SqlParam::Text(JsonObject(types)),
       SqlParam::Int8(static_cast<int64>(stats.keys)),
       SqlParam::Int8(static_cast<int64>(stats.asked)),
       OptionalInt8(bytes),
       OptionalInt8(with_ttl),
       OptionalInt8(without_ttl),
       OptionalInt8(Least(stats.ttl_ms)),
       OptionalInt8(Greatest(stats.ttl_ms)),
       SqlParam::Text(TtlSpread(stats)),
       OptionalInt8(Least(idle)),
       OptionalInt8(Greatest(idle)),
       OptionalInt8(Least(stats.frequency)),
       OptionalInt8(Greatest(stats.frequency)),
       SqlParam::Text(JsonObject(kinds)),
       SqlParam::Int8(OddKeys(family)),
       SqlParam::Text(JsonObject(odd)),
       SqlParam::Text(example),
       text(layout != nullptr ? layout->framework : nullptr),
       text(layout != nullptr ? layout->meaning : nullptr),
       text(layout != nullptr ? layout->target : nullptr),
       SqlParam::Text(suggestion.priority),
       optional(suggestion.create_table),
       optional(suggestion.add_mapping)});
}

void AuditRecord::Finish(const std::string &state, const AuditCounts &counts,
                         const std::optional<std::string> &sqlstate,
                         const std::optional<std::string> &message) {
  Save(counts);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.audit
            SET state = $2, finished_at = clock_timestamp(), sqlstate = $3, message = $4,
                bytes = (SELECT sum(f.bytes) FROM redis_migrate.audit_family AS f WHERE f.audit_id = $1)
            WHERE audit_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(state), SqlParam::OptionalText(sqlstate),
       SqlParam::OptionalText(message)});
}

}  // namespace prm
