// What a verification has found, in the record of it.
#include "pg/identity.h"
#include "pg/spi.h"
#include "verify/verification_record.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

void VerificationRecord::Counts::Add(const Counts &other) {
  rows.Add(other.rows);
  if (other.extra) extra = extra.value_or(0) + *other.extra;
  unsettled += other.unsettled;
  kept += other.kept;
  not_kept += other.not_kept;
}

void VerificationRecord::Findings::Add(const Findings &other) {
  keys.estimated = std::max(keys.estimated, other.keys.estimated);
  keys.read += other.keys.read;
  keys.read_again += other.keys.read_again;
  keys.rejected += other.keys.rejected;
  keys.unwatched += other.keys.unwatched;
  for (const auto &[mapping, of] : other.counts) counts[mapping].Add(of);
  for (const auto &[rule, number] : other.rules) rules[rule] += number;
  restarts += other.restarts;
}

void VerificationRecord::SaveFindings(const Findings &findings) const {
  pg::AsExtensionOwner as_owner;
  for (const auto &[mapping, counts] : findings.counts)
    Spi::Execute(
        R"sql(INSERT INTO redis_migrate.verification_count (
                  verification_id, part, mapping, equal, missing, different, expiry_differs, extra, unsettled,
                  not_kept)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10))sql",
        {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::Text(mapping),
         SqlParam::Int8(counts.rows.equal), SqlParam::Int8(counts.rows.missing),
         SqlParam::Int8(counts.rows.different), SqlParam::Int8(counts.rows.expiry_differs),
         counts.extra ? SqlParam::Int8(*counts.extra) : SqlParam{INT8OID, 0, true},
         SqlParam::Int8(counts.unsettled), SqlParam::Int8(counts.not_kept)});
  if (part_ == 0) return;
  std::vector<std::string> rules;
  std::vector<int64> rejected;
  for (const auto &[rule, keys] : findings.rules) {
    rules.push_back(rule);
    rejected.push_back(keys);
  }
  Spi::Execute(
      R"sql(UPDATE redis_migrate.verification_part
            SET rules = $3, rejected = $4
            WHERE verification_id = $1 AND part = $2)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::TextArray(rules),
       SqlParam::Int8Array(rejected)});
}

VerificationRecord::Findings VerificationRecord::TakeFindings(int64 max_differences) const {
  Findings findings;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(WITH gone AS (
                DELETE FROM redis_migrate.verification_difference AS d
                USING (SELECT difference_id, dense_rank() OVER (PARTITION BY mapping ORDER BY part, number) AS place
                       FROM redis_migrate.verification_difference
                       WHERE verification_id = $1) AS k
                WHERE k.place > $2 AND d.difference_id = k.difference_id
                RETURNING d.part, d.mapping, d.number)
            UPDATE redis_migrate.verification_count AS c
            SET not_kept = c.not_kept + g.numbers
            FROM (SELECT part, mapping, count(DISTINCT number) AS numbers FROM gone GROUP BY part, mapping) AS g
            WHERE c.verification_id = $1 AND c.part = g.part AND c.mapping = g.mapping)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(max_differences)});
  auto const keys = Spi::Execute(
      R"sql(SELECT coalesce(sum(keys_read), 0)::bigint, coalesce(sum(keys_read_again), 0)::bigint,
                coalesce(sum(keys_rejected), 0)::bigint, coalesce(sum(restarts), 0)::bigint,
                coalesce(sum(keys_unwatched), 0)::bigint
            FROM redis_migrate.verification_part
            WHERE verification_id = $1)sql",
      {SqlParam::Int8(id_)});
  findings.keys.read = keys[0].Int8(0);
  findings.keys.read_again = keys[0].Int8(1);
  findings.keys.rejected = keys[0].Int8(2);
  findings.restarts = keys[0].Int8(3);
  findings.keys.unwatched = keys[0].Int8(4);
  auto const rules = Spi::Execute(
      R"sql(SELECT r.rule, sum(r.keys)::bigint
            FROM redis_migrate.verification_part AS p, unnest(p.rules, p.rejected) AS r (rule, keys)
            WHERE p.verification_id = $1
            GROUP BY r.rule)sql",
      {SqlParam::Int8(id_)});
  for (uint64 i = 0; i < rules.size(); ++i) findings.rules[rules[i].Text(0)] = rules[i].Int8(1);
  auto const counts = Spi::Execute(
      R"sql(SELECT mapping, sum(equal)::bigint, sum(missing)::bigint, sum(different)::bigint,
                sum(expiry_differs)::bigint, sum(unsettled)::bigint, sum(not_kept)::bigint
            FROM redis_migrate.verification_count
            WHERE verification_id = $1
            GROUP BY mapping)sql",
      {SqlParam::Int8(id_)});
  for (uint64 i = 0; i < counts.size(); ++i) {
    Counts &of = findings.counts[counts[i].Text(0)];
    of.rows.equal = counts[i].Int8(1);
    of.rows.missing = counts[i].Int8(2);
    of.rows.different = counts[i].Int8(3);
    of.rows.expiry_differs = counts[i].Int8(4);
    of.unsettled = counts[i].Int8(5);
    of.not_kept = counts[i].Int8(6);
  }
  auto const kept = Spi::Execute(
      R"sql(SELECT mapping, count(DISTINCT (part, number))
            FROM redis_migrate.verification_difference
            WHERE verification_id = $1
            GROUP BY mapping)sql",
      {SqlParam::Int8(id_)});
  for (uint64 i = 0; i < kept.size(); ++i) {
    Counts &of = findings.counts[kept[i].Text(0)];
    of.kept = kept[i].Int8(1);
  }
  return findings;
}

}  // namespace prm
