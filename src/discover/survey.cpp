#include "discover/survey.h"

#include <algorithm>
#include <utility>

#include "discover/value_kind.h"
#include "redis/error_words.h"
#include "redis/info.h"
#include "source/key_reply.h"
#include "source/scan_position.h"

namespace prm {
namespace {

// Reads elements only of collections up to this size: nothing else bounds the size of an element.
constexpr uint64_t kMostBytesForElement = 16384;
// The size by MEMORY USAGE, which samples elements: a larger one may be missed.
constexpr redis::ReplyLimit kElementLimit{redis::kSmallReply.bytes, true};
// "NOPERM", "WRONGTYPE"
constexpr size_t kRefusalBytes = 32;
// Pages grow, so that the first ones already tell what to skip in the next.
constexpr long kFirstCount = 10;
constexpr char kAbsentKey[] = "redis_migrate:audit:no such key";

Bytes FirstWord(Bytes text) { return text.substr(0, text.find(' ')); }

void Describe(Bytes value, KeyFacts& facts) {
  facts.kind = DetectValueKind(value.substr(0, kValueKindBytes), value.size() < kValueKindBytes);
  if (facts.kind == ValueKind::kInteger) facts.integer_digits = value.size() - (value[0] == '-' ? 1 : 0);
}

// The first value in a reply to ZRANGE, HRANDFIELD and the like, at whatever depth; the last string of the
// innermost array, so that of field and value it is the value.
bool LastString(const redis::ReplyView& reply, Bytes& text) {
  if (const auto string = reply.String()) {
    text = *string;
    return true;
  }
  return reply.size() > 0 && LastString(reply.element(reply.size() - 1), text);
}

}  // namespace

ServerSurvey::ServerSurvey(redis::Connection& connection, const SurveyOptions& options, Curiosity& curiosity)
    : connection_(connection), options_(options), curiosity_(curiosity), recent_(RandomSipKey()) {}

Result<std::unique_ptr<ServerSurvey>> ServerSurvey::Open(redis::Connection& connection,
                                                         const SurveyOptions& options, Curiosity& curiosity) {
  std::unique_ptr<ServerSurvey> survey(new ServerSurvey(connection, options, curiosity));
  PRM_RETURN_IF_ERROR(survey->Prepare());
  return survey;
}

Result<bool> ServerSurvey::MayUse(std::initializer_list<Bytes> command, const char* name) {
  const Result<redis::Reply> reply = connection_.Command(command);
  if (reply.ok()) return true;
  const ErrorCode code = reply.error().code;
  if (code == ErrorCode::kMoved) return true;  // the error concerns the key, not the user
  if (code != ErrorCode::kPermissionDenied && code != ErrorCode::kServerError) return reply.error();
  // The user may run the command, but not on this key: Redis words the two errors differently.
  if (reply.error().detail.find(redis::kToAccess) != std::string::npos) return true;
  if (name != nullptr) missing_.emplace_back(name);
  return false;
}

Status ServerSurvey::Prepare() {
  struct Need {
    bool& has;
    std::initializer_list<Bytes> command;
    const char* name;
  };
  const Need needs[] = {
      {no_touch_, {"CLIENT", "NO-TOUCH", "ON"}, nullptr},
      {has_type_, {"TYPE", kAbsentKey}, "TYPE"},
      {has_pttl_, {"PTTL", kAbsentKey}, "PTTL"},
      {has_memory_usage_, {"MEMORY", "USAGE", kAbsentKey}, "MEMORY USAGE"},
  };
  for (const Need& need : needs) {
    const Result<bool> may = MayUse(need.command, need.name);
    if (!may.ok()) return may.error();
    need.has = may.value();
  }
  const Result<redis::ServerInfo> info = redis::FetchInfo(connection_);
  if (info.ok()) {
    by_frequency_ = info.value().Get("maxmemory_policy").find("lfu") != Bytes::npos;
  } else if (info.error().code != ErrorCode::kPermissionDenied &&
             info.error().code != ErrorCode::kServerError) {
    return info.error();
  }
  const Result<bool> may = by_frequency_ ? MayUse({"OBJECT", "FREQ", kAbsentKey}, "OBJECT FREQ")
                                         : MayUse({"OBJECT", "IDLETIME", kAbsentKey}, "OBJECT IDLETIME");
  if (!may.ok()) return may.error();
  has_object_ = may.value();
  return {};
}

Status ServerSurvey::AskNames() {
  if (!started_) {
    const Result<redis::Reply> selected =
        connection_.Command({"SELECT", std::to_string(options_.databases[db_index_])});
    if (!selected.ok()) return selected.error();
    recent_.Clear();
    cursor_ = "0";
    count_ = std::min(kFirstCount, options_.scan_count);
    started_ = true;
  }
  connection_.Append({"SCAN", cursor_, "COUNT", std::to_string(count_)}, source::kNamesLimit);
  count_ = std::min(2 * count_, options_.scan_count);
  connection_.Flush();
  return {};
}

Status ServerSurvey::ReceiveNames() {
  const Result<redis::Reply> reply = connection_.Receive();
  if (!reply.ok()) return source::ForNames(reply.error());
  const redis::Reply& page = reply.value();
  if (page.IsError()) return connection_.ToError(page);
  const Bytes cursor = page.element(0).String().value_or("");
  if (page.size() != 2 || !source::IsCursor(cursor) || !page.element(1).IsArray()) {
    return connection_.UnknownReply("SCAN");
  }
  next_ = SurveyPage();
  next_.db = options_.databases[db_index_];
  cursor_ = cursor;
  next_.ends_db = cursor_ == "0";
  next_.names = page.element(1).size();
  for (size_t i = 0; i < page.element(1).size(); ++i) {
    if (!page.element(1).element(i).IsString()) return connection_.UnknownReply("SCAN");
    const Bytes name = *page.element(1).element(i).String();
    if (!recent_.Insert(name)) continue;
    const Question question = curiosity_.Ask(next_.db, name);
    if (question == Question::kIgnore) continue;
    SurveyedKey& key = next_.keys.emplace_back();
    key.name = name;
    key.question = question;
  }
  return {};
}

void ServerSurvey::AskFacts() {
  for (const SurveyedKey& key : next_.keys) {
    if (key.question == Question::kName) continue;
    if (has_object_) connection_.Append({"OBJECT", by_frequency_ ? "FREQ" : "IDLETIME", key.name});
    if (has_type_) connection_.Append({"TYPE", key.name});
    if (has_pttl_) connection_.Append({"PTTL", key.name});
    if (has_memory_usage_) connection_.Append({"MEMORY", "USAGE", key.name});
  }
  connection_.Flush();
}

Result<redis::Reply> ServerSurvey::ReceiveFor(SurveyedKey& key) {
  Result<redis::Reply> reply = connection_.Receive();
  if (reply.ok() && reply.value().IsError()) {
    key.refusal = connection_.gate().Pass(FirstWord(reply.value().ErrorText()), kRefusalBytes);
  }
  return reply;
}

Status ServerSurvey::ReceiveFacts(SurveyedKey& key) {
  KeyFacts& facts = key.facts;
  if (has_object_) {
    const Result<redis::Reply> reply = connection_.Receive();
    if (!reply.ok()) return reply.error();
    if (const auto number = reply.value().Integer(); number && *number >= 0) {
      (by_frequency_ ? facts.frequency : facts.idle_s) = *number;
    } else if (FirstWord(reply.value().ErrorText()) == "NOPERM") {
      key.refusal = "NOPERM";
    }
  }
  if (has_type_) {
    const Result<redis::Reply> reply = ReceiveFor(key);
    if (!reply.ok()) return reply.error();
    if (const auto type = reply.value().StatusText()) facts.type = connection_.gate().Pass(*type);
    key.vanished = key.vanished || facts.type == "none";
  }
  if (has_pttl_) {
    const Result<redis::Reply> reply = ReceiveFor(key);
    if (!reply.ok()) return reply.error();
    if (const auto ttl = reply.value().Integer()) facts.ttl_ms = std::min(*ttl, source::kLatestExpiryMs);
    key.vanished = key.vanished || (facts.ttl_ms && *facts.ttl_ms < KeyFacts::kNoExpiry);
  }
  if (has_memory_usage_) {
    const Result<redis::Reply> reply = ReceiveFor(key);
    if (!reply.ok()) return reply.error();
    if (const auto bytes = reply.value().Integer(); bytes && *bytes >= 0) {
      facts.bytes = static_cast<uint64_t>(*bytes);
    }
    key.vanished = key.vanished || reply.value().IsNil();
  }
  return {};
}

// False when nothing was asked.
bool ServerSurvey::AskValue(const SurveyedKey& key) {
  if (key.question != Question::kFactsAndValue || key.vanished || !key.refusal.empty()) return false;
  const std::string& type = key.facts.type;
  if (std::find(unreadable_types_.begin(), unreadable_types_.end(), type) != unreadable_types_.end()) {
    return false;
  }
  if (type == "string") {
    connection_.Append({"GETRANGE", key.name, "0", std::to_string(kValueKindBytes - 1)});
    return true;
  }
  if (!key.facts.bytes || *key.facts.bytes > kMostBytesForElement) return false;
  if (type == "list") {
    connection_.Append({"LRANGE", key.name, "0", "0"}, kElementLimit);
  } else if (type == "set") {
    connection_.Append({"SRANDMEMBER", key.name}, kElementLimit);
  } else if (type == "zset") {
    connection_.Append({"ZRANGE", key.name, "0", "0"}, kElementLimit);
  } else if (type == "hash") {
    connection_.Append({"HRANDFIELD", key.name, "1", "WITHVALUES"}, kElementLimit);
  } else if (type == "stream") {
    connection_.Append({"XRANGE", key.name, "-", "+", "COUNT", "1"}, kElementLimit);
  } else {
    return false;
  }
  return true;
}

Status ServerSurvey::ReceiveValue(SurveyedKey& key) {
  const Result<redis::Reply> reply = connection_.Receive();
  if (!reply.ok()) return reply.error();
  const redis::Reply& value = reply.value();
  if (value.IsError()) {
    // An error because the key has another type by now says nothing about the command.
    const Bytes word = FirstWord(value.ErrorText());
    if (word != "NOPERM" && word != "ERR") return {};
    const std::string& type = key.facts.type;
    if (std::find(unreadable_types_.begin(), unreadable_types_.end(), type) == unreadable_types_.end()) {
      missing_.push_back("values of type " + type);
      unreadable_types_.push_back(type);
    }
    return {};
  }
  Bytes text;
  if (LastString(value, text)) Describe(text, key.facts);
  if (key.facts.type == "hash" && value.size() == 2) {
    key.facts.field = value.element(0).String().value_or("").substr(0, 32);
  }
  return {};
}

Result<bool> ServerSurvey::Next(SurveyPage& page) {
  if (!ahead_) {
    if (db_index_ == options_.databases.size()) return false;
    PRM_RETURN_IF_ERROR(AskNames());
    PRM_RETURN_IF_ERROR(ReceiveNames());
    AskFacts();
  }
  ahead_ = false;
  page = std::move(next_);
  const bool scans = !page.ends_db;
  if (scans) PRM_RETURN_IF_ERROR(AskNames());
  std::vector<size_t> values;
  for (size_t i = 0; i < page.keys.size(); ++i) {
    SurveyedKey& key = page.keys[i];
    if (key.question == Question::kName) continue;
    PRM_RETURN_IF_ERROR(ReceiveFacts(key));
    if (AskValue(key)) values.push_back(i);
  }
  if (scans) PRM_RETURN_IF_ERROR(ReceiveNames());
  for (const size_t i : values) PRM_RETURN_IF_ERROR(ReceiveValue(page.keys[i]));
  if (scans) {
    AskFacts();
    ahead_ = true;
  } else {
    ++db_index_;
    started_ = false;
  }
  return true;
}

}  // namespace prm
