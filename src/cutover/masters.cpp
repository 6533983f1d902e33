#include "cutover/masters.h"

#include "core/printable.h"
#include "live/live_links.h"
#include "pg/spi.h"
#include "redis/cluster_slots.h"
#include "redis/info.h"
#include "redis/role.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::ValueOrThrow;

namespace {

std::vector<std::string> Words(const std::string &text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    size_t const end = std::min(text.find(' ', at), text.size());
    if (end > at) words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

constexpr long kMostConnectMs = 1000;  // to one master, while others wait to be undone

// The value of a field of ACL GETUSER, a list of names and values.
redis::ReplyView FieldOf(const redis::ReplyView &user, Bytes name) {
  for (size_t i = 0; i + 1 < user.size(); i += 2)
    if (user.element(i).String() == name) return user.element(i + 1);
  return redis::ReplyView(nullptr);
}

// The rules for commands in a reply to ACL GETUSER. A table keeps them, and SetRules gives them back: only
// words like +get, -@write and +config|get pass, and none with our own password. Errors: 08P01.
std::string RulesOf(redis::Connection &redis, const redis::ReplyView &user) {
  std::optional<Bytes> const text = FieldOf(user, "commands").String();
  std::string rules(text.value_or(""));
  std::vector<std::string> const words = Words(rules);
  bool const are_rules = std::all_of(words.begin(), words.end(), [](const std::string &word) {
    return (word[0] == '+' || word[0] == '-') && Printable(word, word.size()) == word;
  });
  Error error = redis.UnknownReply("ACL GETUSER");
  if (!text || !are_rules) throw Failure(error);
  if (redis.gate().Quotes(rules)) {
    error.detail = "The rules contain the password of the migration's own user, and would be stored.";
    error.hint = "If it is a word that rules have, give that user another one.";
    throw Failure(error);
  }
  return rules;
}

bool HasSelectors(const redis::ReplyView &user) { return FieldOf(user, "selectors").size() > 0; }

// Nothing: there is no such user.
std::optional<std::string> FetchRules(redis::Connection &redis, const std::string &name) {
  redis::Reply const user = ValueOrThrow(redis.Command({"ACL", "GETUSER", name}));
  if (user.IsNil()) return std::nullopt;
  return RulesOf(redis, user);
}

// The next reply of a command that is answered by OK: any other answer tells nothing of what was done.
// Errors: those of Connection::Command, 08P01.
void ReceiveOk(redis::Connection &redis, const std::string &command) {
  redis::Reply const reply = ValueOrThrow(redis.Receive());
  if (reply.IsError()) throw Failure(redis.ToError(reply));
  if (reply.StatusText() != Bytes("OK")) throw Failure(redis.UnknownReply(command));
}

void Do(redis::Connection &redis, const std::vector<Bytes> &command) {
  redis.Append(command.data(), command.size());
  ReceiveOk(redis, std::string(command[0]) + " " + std::string(command[1]));
}

std::string FetchRunId(redis::Connection &redis) {
  return std::string(ValueOrThrow(redis::FetchInfo(redis)).Show("run_id"));
}

void SetRules(redis::Connection &redis, const FencedUser &user) {
  std::vector<std::string> const rules = Words(user.rules);
  std::vector<Bytes> arguments = {"ACL", "SETUSER", user.name};
  arguments.insert(arguments.end(), rules.begin(), rules.end());
  Do(redis, arguments);
}

}  // namespace

bool IsFenced(const FencedUser &user, const std::string &rules) {
  if (!user.fenced_rules.empty()) return rules == user.fenced_rules;
  std::vector<std::string> const words = Words(rules);
  return std::count(words.begin(), words.end(), "-@write") > 0;
}

Masters::Masters(const std::string &server, Oid user) { Connect(server, user, nullptr); }

Masters::Masters(const std::string &server, Oid user, std::vector<Failure> &failures) {
  Connect(server, user, &failures);
}

void Masters::Connect(const std::string &server, Oid user, std::vector<Failure> *failures) {
  std::vector<std::vector<std::string>> nodes(1);
  if (std::optional<redis::ClusterTopology> const topology = TopologyOf(server, user)) {
    nodes.clear();
    for (const redis::ClusterShard &shard : topology->shards) nodes.push_back({shard.master.id});
  }
  for (const std::vector<std::string> &of_master : nodes) try {
      auto connection = of_master.empty()
                            ? std::make_unique<ServerConnection>(server, user)
                            : std::make_unique<ServerConnection>(
                                  server, user, of_master, failures == nullptr ? LONG_MAX : kMostConnectMs);
      Spi::Commit();
      if (!connection->is_open())
        throw Failure(ERRCODE_CONNECTION_FAILURE, "a master of the cluster has just lost its slots");
      std::optional<redis::Role> const role = ValueOrThrow(redis::FetchRole(**connection));
      if (role && !role->is_master)
        throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "Redis at " + (*connection)->address() + " is a replica",
                      "Writes can be held back only by their master.",
                      "Let server \"" + server + "\" name the master, or the Sentinels that know it.");
      connections_.push_back(std::move(connection));
    } catch (const Failure &failure) {
      if (failures == nullptr || of_master.empty()) throw;
      failures->push_back(failure);
      unreached_.insert(of_master[0]);
    }
}

void Masters::RequireRights(const std::string &fence, const std::vector<std::string> &users) {
  for (const auto &connection : connections_) {
    redis::Connection &redis = **connection;
    // Redis' error if it does not permit the command.
    auto refusal = [&](const std::vector<Bytes> &command) -> std::optional<std::string> {
      redis.Append(command.data(), command.size());
      redis::Reply const reply = ValueOrThrow(redis.Receive());
      if (!reply.IsError()) return std::nullopt;
      Error const error = redis.ToError(reply);
      return error.code == ErrorCode::kPermissionDenied ? std::optional(error.detail) : std::nullopt;
    };
    std::string missing, words;
    auto require = [&](const std::vector<Bytes> &command, const char *right) {
      std::optional<std::string> const said = refusal(command);
      if (!said) return;
      missing += (missing.empty() ? "" : " ") + std::string(right);
      words = *said;
    };
    // With arguments that are none, so that the commands do nothing.
    require({"CLIENT", "PAUSE", "?", "WRITE"}, "+client|pause");
    // It has none, and would end somebody's pause. Where there are no transactions nothing tells whether it
    // is forbidden, too: the pause would then end by itself.
    auto begins = [&] {
      redis.Append({"MULTI"});
      return ValueOrThrow(redis.Receive()).IsStatus();
    };
    if (!refusal({"DISCARD"}) && begins()) {
      require({"CLIENT", "UNPAUSE"}, "+client|unpause");
      (void)refusal({"DISCARD"});
    }
    if (fence == "kill") require({"CLIENT", "KILL", "TYPE", "?"}, "+client|kill");
    if (!users.empty()) {
      require({"ACL", "WHOAMI"}, "+acl|whoami");
      require({"ACL", "GETUSER", users[0]}, "+acl|getuser");
      require({"ACL", "SETUSER", users[0], "?"}, "+acl|setuser");
    }
    if (!missing.empty())
      throw Failure(
          ERRCODE_INSUFFICIENT_PRIVILEGE,
          "the user of this migration may not do at Redis at " + redis.address() + " what a cutover does",
          "Redis says: " + words, "As an administrator of Redis: ACL SETUSER <user> " + missing + ".");
  }
}

void Masters::Pause(int64 most_ms) {
  std::string const ms = std::to_string(most_ms);
  for (const auto &connection : connections_) Do(**connection, {"CLIENT", "PAUSE", ms, "WRITE"});
}

std::vector<Failure> Masters::Resume() {
  std::vector<Failure> failures;
  for (const auto &connection : connections_) try {
      Do(**connection, {"CLIENT", "UNPAUSE"});
    } catch (const Failure &failure) {
      failures.push_back(failure);
    }
  return failures;
}

std::vector<redis::ReplicationPoint> Masters::FetchPoints() {
  for (size_t number = points_.size(); number < connections_.size(); ++number)
    points_.push_back(ValueOrThrow(source::NamedKeys::Open(**connections_[number], {})));
  std::vector<redis::ReplicationPoint> points;
  for (const auto &master : points_) points.push_back(ValueOrThrow(master->FetchPoint()));
  return points;
}

std::vector<FencedUser> Masters::FetchUsers(const std::vector<std::string> &names) {
  std::vector<FencedUser> users;
  for (const auto &connection : connections_) {
    redis::Connection &redis = **connection;
    std::string const run_id = FetchRunId(redis);
    redis::Reply const own = ValueOrThrow(redis.Command({"ACL", "WHOAMI"}));
    if (!own.String()) throw Failure(redis.UnknownReply("ACL WHOAMI"));
    for (const std::string &name : names) {
      std::string const shown = redis.gate().Pass(name);
      if (own.String() == Bytes(name))
        throw Failure(
            ERRCODE_INVALID_PARAMETER_VALUE,
            "\"" + shown + "\" is the user with whom this migration connects to Redis",
            "Without @write it could still read, but nothing tells its writes from the application's.",
            "Give the migration a user of its own, see the user mapping of its server.");
      redis::Reply const user = ValueOrThrow(redis.Command({"ACL", "GETUSER", name}));
      if (user.IsNil())
        throw Failure(ERRCODE_UNDEFINED_OBJECT,
                      "Redis at " + redis.address() + " has no user \"" + shown + "\"", "",
                      "redis-cli ACL USERS lists them.");
      std::string const rules = RulesOf(redis, user);
      if (HasSelectors(user))
        throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                      "user \"" + shown + "\" has selectors, which may permit writes by themselves", "",
                      "redis-cli ACL SETUSER " + shown + " clearselectors, or fence => 'kill'.");
      users.push_back({connection->node().id, redis.address(), name, rules, "", run_id});
    }
  }
  return users;
}

std::vector<FencedUser> Masters::FindUsers(const std::string &name, std::vector<Failure> &failures) {
  std::vector<FencedUser> users;
  for (const auto &connection : connections_) try {
      redis::Connection &redis = **connection;
      redis::Reply const user = ValueOrThrow(redis.Command({"ACL", "GETUSER", name}));
      if (!user.IsNil())
        users.push_back({connection->node().id, redis.address(), name, RulesOf(redis, user), "",
                         FetchRunId(redis), HasSelectors(user)});
    } catch (const Failure &failure) {
      failures.push_back(failure);
    }
  return users;
}

bool Masters::LetAnybodyWrite() {
  for (const auto &connection : connections_) {
    redis::Reply const user = ValueOrThrow((*connection)->Command({"ACL", "GETUSER", "default"}));
    redis::ReplyView const flags = FieldOf(user, "flags");
    std::set<std::string> words;
    for (size_t i = 0; i < flags.size(); ++i) words.emplace(flags.element(i).String().value_or(""));
    std::vector<std::string> const rules =
        Words(std::string(FieldOf(user, "commands").String().value_or("")));
    if (words.count("on") > 0 && words.count("nopass") > 0 && !rules.empty() && rules[0] == "+@all" &&
        std::count(rules.begin(), rules.end(), "-@write") == 0)
      return true;
  }
  return false;
}

void Masters::TakeWrite(std::vector<FencedUser> &users) {
  for (const auto &connection : connections_)
    for (FencedUser &user : users) {
      if (user.node != connection->node().id) continue;
      redis::Connection &redis = **connection;
      // In one go: rules that somebody else sets in between would be taken for those of the fence.
      redis.Append({"ACL", "SETUSER", user.name, "-@write"});
      redis.Append({"ACL", "GETUSER", user.name});
      ReceiveOk(redis, "ACL SETUSER");
      redis::Reply const now = ValueOrThrow(redis.Receive());
      if (now.IsError()) throw Failure(redis.ToError(now));
      user.fenced_rules = now.IsNil() ? "" : RulesOf(redis, now);
    }
}

ReturnedUsers Masters::GiveBack(const std::vector<FencedUser> &users, std::vector<Failure> &failures) {
  ReturnedUsers returned;
  for (const FencedUser &user : users) {
    auto const connection = std::find_if(connections_.begin(), connections_.end(),
                                         [&](const auto &master) { return master->node().id == user.node; });
    if (connection == connections_.end()) {
      if (unreached_.count(user.node) == 0) returned.gone.push_back(user);
      continue;
    }
    redis::Connection &redis = ***connection;
    try {
      std::optional<std::string> const rules = FetchRules(redis, user.name);
      bool const is_replaced = user.node.empty() && user.address != redis.address();
      // The one that is the master now has its own.
      bool const is_noted_here =
          is_replaced && std::any_of(users.begin(), users.end(), [&](const FencedUser &other) {
            return other.node.empty() && other.address == redis.address() && other.name == user.name;
          });
      if (!rules || is_noted_here || (is_replaced && !IsFenced(user, *rules))) {  // SETUSER would create it
        returned.gone.push_back(user);
      } else if (*rules == user.rules) {
        returned.done.push_back(user);
      } else if (!IsFenced(user, *rules)) {
        returned.changed.push_back(user);
      } else {
        SetRules(redis, user);
        returned.done.push_back(user);
      }
    } catch (const Failure &failure) {
      failures.push_back(failure);
    }
  }
  return returned;
}

bool Masters::Has(size_t number, Bytes key) const {
  const ServerConnection &master = *connections_[number];
  size_t const slot = redis::KeySlot(key);
  return std::any_of(master.topology().shards.begin(), master.topology().shards.end(),
                     [&](const redis::ClusterShard &shard) {
                       return shard.master.id == master.node().id && shard.slots.test(slot);
                     });
}

void Masters::KillClients() {
  for (const auto &connection : connections_) {
    redis::Connection &redis = **connection;
    redis::Reply const killed =
        ValueOrThrow(redis.Command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}));
    if (!killed.IsInteger()) throw Failure(redis.UnknownReply("CLIENT KILL"));
  }
}

}  // namespace prm
