#include "lib/cpp/rdb_rows.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "rdb/dump.h"

namespace prm::test {

namespace {

std::string IdText(const rdb::StreamId& id) { return std::to_string(id.ms) + "-" + std::to_string(id.seq); }

void SortUnlessOrdered(const std::string& type, Rows& rows) {
  if (type == "set" || type == "hash" || type == "zset") std::sort(rows.begin(), rows.end());
}

class RowCollector : public rdb::ValueVisitor {
 public:
  Rows rows;

  void OnString(Bytes value) override { Add({std::string(value)}); }
  void OnListElement(Bytes element) override { Add({std::string(element)}); }
  void OnSetMember(Bytes member) override { Add({std::string(member)}); }
  void OnHashField(Bytes field, Bytes value) override { Add({std::string(field), std::string(value)}); }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    Add({std::string(field), std::string(value), std::to_string(expires_at_ms)});
  }
  void OnModuleValue(Bytes type_name) override { Add({std::string(type_name)}); }
  void OnZsetMember(Bytes member, double score) override { Add({std::string(member), ExactScore(score)}); }
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields& fields) override {
    Row row = {"entry", IdText(id)};
    for (const auto& [field, value] : fields) {
      row.emplace_back(field);
      row.emplace_back(value);
    }
    Add(std::move(row));
  }
  void OnStreamInfo(const rdb::StreamInfo& info) override {
    Add({"info", std::to_string(info.length), IdText(info.last_id), IdText(info.first_id),
         IdText(info.max_deleted_id), std::to_string(info.entries_added)});
  }
  void OnStreamGroup(const rdb::StreamGroup& group) override {
    Add({"group", std::string(group.name), IdText(group.last_delivered_id),
         std::to_string(group.entries_read)});
  }
  void OnStreamConsumer(const rdb::StreamConsumer& consumer) override {
    Add({"consumer", std::string(consumer.group), std::string(consumer.name),
         std::to_string(consumer.seen_time_ms), std::to_string(consumer.pending)});
  }
  void OnStreamPending(const rdb::StreamPending& pending) override {
    Add({"pending", std::string(pending.group), std::string(pending.consumer), IdText(pending.id),
         std::to_string(pending.delivery_time_ms), std::to_string(pending.delivery_count)});
  }

 private:
  void Add(Row row) { rows.push_back(std::move(row)); }
};

Rows Grouped(const std::vector<std::string>& flat, size_t width) {
  Rows rows;
  for (size_t i = 0; i < flat.size(); i += width) rows.emplace_back(&flat[i], &flat[i] + width);
  return rows;
}

// The value that follows a name in a flat array of names and values.
const redisReply* Member(const redisReply* array, const std::string& name) {
  for (size_t i = 0; i + 1 < array->elements; i += 2) {
    if (Text(array->element[i]) == name) return array->element[i + 1];
  }
  throw std::runtime_error("no member " + name);
}

std::string Number(const redisReply* reply) { return std::to_string(reply->integer); }

Rows StreamRows(RedisClient& redis, const std::string& key) {
  Rows rows;
  const Reply entries = redis.Command({"XRANGE", key, "-", "+"});
  for (size_t i = 0; i < entries->elements; ++i) {
    const redisReply* entry = entries->element[i];
    Row row = {"entry", Text(entry->element[0])};
    for (size_t j = 0; j < entry->element[1]->elements; ++j) {
      row.push_back(Text(entry->element[1]->element[j]));
    }
    rows.push_back(row);
  }
  const Reply info = redis.Command({"XINFO", "STREAM", key, "FULL", "COUNT", "0"});
  rows.push_back({"info", Number(Member(info.get(), "length")), Text(Member(info.get(), "last-generated-id")),
                  Text(Member(info.get(), "recorded-first-entry-id")),
                  Text(Member(info.get(), "max-deleted-entry-id")),
                  Number(Member(info.get(), "entries-added"))});
  const redisReply* groups = Member(info.get(), "groups");
  for (size_t i = 0; i < groups->elements; ++i) {
    const redisReply* group = groups->element[i];
    const std::string name = Text(Member(group, "name"));
    const redisReply* entries_read = Member(group, "entries-read");
    rows.push_back({"group", name, Text(Member(group, "last-delivered-id")),
                    entries_read->type == REDIS_REPLY_NIL ? "-1" : Number(entries_read)});
    const redisReply* consumers = Member(group, "consumers");
    for (size_t j = 0; j < consumers->elements; ++j) {
      const redisReply* consumer = consumers->element[j];
      const std::string consumer_name = Text(Member(consumer, "name"));
      rows.push_back({"consumer", name, consumer_name, Number(Member(consumer, "seen-time")),
                      Number(Member(consumer, "pel-count"))});
      const redisReply* pending = Member(consumer, "pending");
      for (size_t k = 0; k < pending->elements; ++k) {
        const redisReply* entry = pending->element[k];
        rows.push_back({"pending", name, consumer_name, Text(entry->element[0]), Number(entry->element[1]),
                        Number(entry->element[2])});
      }
    }
  }
  return rows;
}

}  // namespace

std::string ExactScore(double score) {
  char text[40];
  std::snprintf(text, sizeof(text), "%a", score);
  return text;
}

Result<Rows> CollectRows(rdb::ValueType type, const std::function<Status(rdb::ValueVisitor&)>& decode) {
  RowCollector collector;
  PRM_RETURN_IF_ERROR(decode(collector));
  SortUnlessOrdered(rdb::TypeName(type), collector.rows);
  return std::move(collector.rows);
}

Result<Rows> DecodedRows(Bytes payload) {
  const Result<rdb::ValueType> type = rdb::DumpType(payload);
  if (!type.ok()) return type.error();
  return CollectRows(type.value(),
                     [payload](rdb::ValueVisitor& visitor) { return rdb::DecodeDump(payload, visitor); });
}

Rows RedisRows(RedisClient& redis, const std::string& key) {
  const std::string type = redis.String({"TYPE", key});
  Rows rows;
  if (type == "string") rows = {{redis.String({"GET", key})}};
  if (type == "list") rows = Grouped(redis.Strings({"LRANGE", key, "0", "-1"}), 1);
  if (type == "set") rows = Grouped(redis.Strings({"SMEMBERS", key}), 1);
  if (type == "hash") rows = Grouped(redis.Strings({"HGETALL", key}), 2);
  if (type == "zset") {
    rows = Grouped(redis.Strings({"ZRANGE", key, "0", "-1", "WITHSCORES"}), 2);
    for (Row& row : rows) row[1] = ExactScore(std::strtod(row[1].c_str(), nullptr));
  }
  if (type == "stream") rows = StreamRows(redis, key);
  SortUnlessOrdered(type, rows);
  return rows;
}

}  // namespace prm::test
