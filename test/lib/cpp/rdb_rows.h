// A value as rows of text, once from the decoder and once from Redis' own commands, so that they can be
// compared.
//   string  {value}                      list  {element}, head to tail
//   set     {member}, sorted             hash  {field, value}, sorted; {field, value, expiry} if it has one
//   zset    {member, score}, sorted; the score exact, in hexadecimal
//   stream  {"entry", id, field, value, ...} by id
//           {"info", length, last id, first id, greatest deleted id, entries added}
//           {"group", name, last delivered id, entries read}, then for each of its consumers
//           {"consumer", group, name, seen time, pending} and for each entry pending for it
//           {"pending", group, consumer, id, delivery time, delivery count}
//   module  {name of the type}
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "lib/cpp/redis_client.h"
#include "rdb/value.h"

namespace prm::test {

using Row = std::vector<std::string>;
using Rows = std::vector<Row>;

// The rows that `decode` hands to its visitor; sorted where the type has no order.
Result<Rows> CollectRows(rdb::ValueType type, const std::function<Status(rdb::ValueVisitor&)>& decode);

// The rows of a DUMP payload, by DecodeDump.
Result<Rows> DecodedRows(Bytes payload);

// A score as it stands in rows.
std::string ExactScore(double score);

// The rows of a key, by GET, LRANGE, SMEMBERS, HGETALL, ZRANGE, XRANGE and XINFO STREAM FULL (Redis 7).
Rows RedisRows(RedisClient& redis, const std::string& key);

}  // namespace prm::test
