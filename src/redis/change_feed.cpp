#include "redis/change_feed.h"

#include <charconv>
#include <utility>

#include "redis/info.h"

namespace prm::redis {

namespace {

constexpr Bytes kInvalidations = "__redis__:invalidate";
constexpr Bytes kEvents = "__keyevent@*__:*";
constexpr Bytes kSpaces = "__keyspace@*__:*";
constexpr Bytes kFlagsName = "notify-keyspace-events";

constexpr Bytes kPing = "*1\r\n$4\r\nPING\r\n";

// So much is taken at a time.
constexpr size_t kMostMessages = 10000;
constexpr uint64_t kMostNameBytes = uint64_t{1} << 20;

bool IsRefusal(const Error& error) {
  return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
}

std::string Sentence(const Error& error) {
  return error.message + (error.detail.empty() ? "." : ": " + error.detail + ".");
}

bool Has(Bytes flags, char flag) { return flags.find(flag) != Bytes::npos; }

// "__keyevent@12__:set": takes the prefix and the number, and what is between them and the rest.
std::optional<int> TakeDatabase(Bytes& channel, Bytes prefix) {
  if (channel.substr(0, prefix.size()) != prefix) return std::nullopt;
  const Bytes rest = channel.substr(prefix.size());
  int db = 0;
  const auto [at, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), db);
  const Bytes after = rest.substr(static_cast<size_t>(at - rest.data()));
  if (failed != std::errc() || db < 0 || after.substr(0, 3) != "__:") return std::nullopt;
  channel = after.substr(3);
  return db;
}

}  // namespace

Result<std::unique_ptr<ChangeFeed>> ChangeFeed::Open(Connection& subscriber, Connection& commands,
                                                     bool may_track) {
  const auto server = FetchInfo(subscriber);
  if (!server.ok()) return server.error();
  if (server.value().Get("redis_mode") == "cluster") {
    return Error{ErrorCode::kUnsupported,
                 "Redis at " + subscriber.address() + " is a node of a cluster",
                 "Changes of clusters are followed by replication alone.",
                 {}};
  }
  // First what must not change: a change while the feed is being opened is not missed.
  auto data = DataWatch::Begin(commands);
  if (!data.ok()) return data.error();
  std::unique_ptr<ChangeFeed> feed(new ChangeFeed(subscriber, commands, std::move(data.value())));
  if (server.value().run_id() != Bytes(feed->run_id()))
    return NotAvailable(commands, "is not one server: two connections led to different ones");
  // A subscriber may be refused it as well, and then nothing would ever be settled.
  const auto pong = subscriber.Command({"PING"});
  if (!pong.ok()) {
    if (!IsRefusal(pong.error())) return pong.error();
    return Error{ErrorCode::kUnsupported,
                 "Redis at " + subscriber.address() + " does not tell whether all changes have been told",
                 Sentence(pong.error()), "ACL SETUSER ... +ping"};
  }
  subscriber.ExpectMessages(kLargeReply);
  const auto tracks = may_track ? feed->Track() : Result<bool>(false);
  if (!tracks.ok()) return tracks.error();
  if (!tracks.value()) PRM_RETURN_IF_ERROR(feed->Notify(may_track));
  if (!feed->data_.sees_commands()) {
    if (!feed->doubt_.empty()) feed->doubt_ += "; ";
    feed->doubt_ += std::string("INFO commandstats does not show whether ") +
                    (tracks.value() ? "" : "FLUSHALL, FLUSHDB, ") +
                    "SWAPDB, REPLICAOF or FAILOVER was called";
  }
  return feed;
}

// False: the server or the user has no tracking.
Result<bool> ChangeFeed::Track() {
  auto answer = subscriber_.Command({"CLIENT", "ID"});
  std::optional<int64_t> id;
  if (answer.ok()) {
    id = answer.value().Integer();
    if (!id) return subscriber_.UnknownReply("CLIENT");
    answer = subscriber_.Command({"SUBSCRIBE", kInvalidations});
  }
  if (answer.ok())
    answer = commands_.Command({"CLIENT", "TRACKING", "ON", "REDIRECT", std::to_string(*id), "BCAST"});
  if (answer.ok()) return true;
  if (!IsRefusal(answer.error())) return answer.error();
  no_tracking_ = Sentence(answer.error());
  return false;
}

Status ChangeFeed::Notify(bool may_track) {
  kind_ = Kind::kNotifications;
  PRM_RETURN_IF_ERROR(ReadFlags());
  std::string problem;
  if (!flags_) {
    doubt_ = "CONFIG GET is refused: nothing shows whether the server sends every notification";
  } else if (!MissingFlags().empty()) {
    problem = "notify-keyspace-events is \"" + commands_.gate().Pass(*flags_) + "\" and lacks " +
              MissingFlags() + ".";
  }
  const bool wants_events = !flags_ || Has(*flags_, 'E');
  const bool wants_spaces = !flags_ || !wants_events;
  for (const auto& [is_wanted, pattern] :
       {std::pair(wants_events, kEvents), std::pair(wants_spaces, kSpaces)}) {
    if (!is_wanted || !problem.empty()) continue;
    const auto subscribed = subscriber_.Command({"PSUBSCRIBE", pattern});
    if (!subscribed.ok() && !IsRefusal(subscribed.error())) return subscribed.error();
    if (!subscribed.ok()) problem = Sentence(subscribed.error());
  }
  if (problem.empty()) return {};
  return Error{
      ErrorCode::kUnsupported, "Redis at " + commands_.address() + " does not tell which keys change",
      (may_track ? no_tracking_ : "Tracking does not tell databases, and the migration names none.") + " " +
          problem,
      "CONFIG SET notify-keyspace-events AKE, or set the parameter of that name at the service; or ACL "
      "SETUSER ... +ping +client|id +client|tracking +subscribe &__redis__:invalidate +psubscribe "
      "&__keyevent@*__:* &__keyspace@*__:*" +
          std::string(may_track ? "" : "; or name the databases of the migration") + "."};
}

Status ChangeFeed::ReadFlags() {
  flags_.reset();
  const auto reply = commands_.Command({"CONFIG", "GET", kFlagsName});
  if (!reply.ok()) return IsRefusal(reply.error()) ? Status() : Status(reply.error());
  if (!reply.value().IsArray()) return commands_.UnknownReply("CONFIG");
  const auto value = reply.value().element(1).String();
  if (value) flags_ = std::string(*value);
  return {};
}

// The flags that notify-keyspace-events still needs. A server says A if it tells changes of every type that
// it has, those of its modules among them.
std::string ChangeFeed::MissingFlags() const {
  std::string missing = Has(*flags_, 'A') ? "" : "A";
  if (!Has(*flags_, 'K') && !Has(*flags_, 'E')) missing += "E";
  return missing;
}

Status ChangeFeed::Read(long wait_ms, std::vector<Change>& changes) {
  uint64_t bytes = 0;
  for (size_t taken = 0; taken < kMostMessages && bytes < kMostNameBytes; ++taken) {
    const auto message = subscriber_.ReceiveMessage(taken == 0 ? wait_ms : 0);
    if (!message.ok()) return message.error();
    if (!message.value()) break;
    const size_t before = changes.size();
    PRM_RETURN_IF_ERROR(Take(*message.value(), changes));
    told_ += changes.size() - before;
    for (size_t i = before; i < changes.size(); ++i) bytes += changes[i].key.size();
  }
  return {};
}

// "message channel payload", "pmessage pattern channel payload", or "pong" and an empty string.
Status ChangeFeed::Take(const Reply& message, std::vector<Change>& changes) {
  if (message.IsError()) {
    Error error = subscriber_.ToError(message.ErrorText(), "PING");
    if (!IsBusy(error)) return error;
    ++refusals_;
    return {};
  }
  const Bytes kind = message.element(0).String().value_or("");
  if (kind == "pong" && message.size() == 2) {
    ++pongs_;
    return {};
  }
  if (kind == "message" && message.size() == 3 && message.element(1).String() == kInvalidations)
    return TakeInvalidation(message.element(2), changes);
  const auto channel = message.element(2).String();
  const auto payload = message.element(3).String();
  if (kind == "pmessage" && message.size() == 4 && channel && payload)
    return TakeNotification(*channel, *payload, changes);
  return subscriber_.UnknownReply("SUBSCRIBE");
}

Status ChangeFeed::TakeInvalidation(const ReplyView& keys, std::vector<Change>& changes) {
  if (keys.IsNil()) {
    is_emptied_ = true;
    return NotAvailable(subscriber_, "was emptied by FLUSHALL or FLUSHDB");
  }
  if (!keys.IsArray()) return subscriber_.UnknownReply("SUBSCRIBE");
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto key = keys.element(i).String();
    if (!key) return subscriber_.UnknownReply("SUBSCRIBE");
    changes.push_back({std::nullopt, std::string(*key)});
  }
  return {};
}

Status ChangeFeed::TakeNotification(Bytes channel, Bytes payload, std::vector<Change>& changes) {
  if (const auto db = TakeDatabase(channel, "__keyevent@")) {
    changes.push_back({db, std::string(payload)});
    return {};
  }
  if (const auto db = TakeDatabase(channel, "__keyspace@")) {
    changes.push_back({db, std::string(channel)});
    return {};
  }
  return subscriber_.UnknownReply("PSUBSCRIBE");
}

void ChangeFeed::Ping() { subscriber_.SendRaw(kPing); }

Result<bool> ChangeFeed::CountKeys() {
  if (data_.sees_commands()) return true;
  Count count{told_, {}};
  const auto reply = commands_.Command({"INFO", "keyspace"});
  if (!reply.ok() && IsBusy(reply.error())) return false;
  if (!reply.ok()) return reply.error();
  for (const KeyspaceInfo& info : ServerInfo(reply.value().String().value_or("")).Keyspace())
    count.keys[info.db] = info.keys;
  counted_ = std::move(count);
  return true;
}

// Whatever removes one key tells its name, and what removes all tells none. By now everything has been told
// that happened before the keys were counted.
Status ChangeFeed::JudgeCount() {
  if (!counted_) return {};
  if (judged_) {
    const uint64_t told = told_ - judged_->told;
    for (const auto& [db, keys] : judged_->keys) {
      const auto left = counted_->keys.find(db);
      const uint64_t now = left == counted_->keys.end() ? 0 : left->second;
      if (keys > now && keys - now > told)
        return NotAvailable(commands_,
                            "has lost keys without telling which: as FLUSHALL, FLUSHDB and SWAPDB do");
    }
  }
  judged_ = std::exchange(counted_, std::nullopt);
  return {};
}

Result<bool> ChangeFeed::Check() {
  auto is_same = data_.Check(commands_);
  if (!is_same.ok() || !is_same.value()) return is_same;
  PRM_RETURN_IF_ERROR(JudgeCount());
  if (kind_ != Kind::kNotifications || !flags_) return is_same;
  const Status read = ReadFlags();
  if (!read.ok() && IsBusy(read.error())) return false;
  PRM_RETURN_IF_ERROR(read);
  if (!flags_) return NotAvailable(commands_, "no longer shows whether it sends all notifications");
  if (!MissingFlags().empty()) return NotAvailable(commands_, "no longer sends all notifications");
  return true;
}

}  // namespace prm::redis
