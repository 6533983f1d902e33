#include "cutover/masters.h"

#include "live/live_links.h"
#include "pg/spi.h"
#include "redis/role.h"
#include "source/named_keys.h"

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

// The value of a field of ACL GETUSER, a list of names and values.
redis::ReplyView FieldOf(const redis::ReplyView &user, Bytes name) {
  for (size_t i = 0; i + 1 < user.size(); i += 2)
    if (user.element(i).String() == name) return user.element(i + 1);
  return redis::ReplyView(nullptr);
}

}  // namespace

Masters::Masters(const std::string &server, Oid user) {
  std::vector<std::vector<std::string>> nodes(1);
  if (std::optional<redis::ClusterTopology> const topology = TopologyOf(server, user)) {
    nodes.clear();
    for (const redis::ClusterShard &shard : topology->shards) nodes.push_back({shard.master.id});
  }
  for (const std::vector<std::string> &of_master : nodes) {
    auto connection = of_master.empty() ? std::make_unique<ServerConnection>(server, user)
                                        : std::make_unique<ServerConnection>(server, user, of_master);
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
  }
}

void Masters::Pause(int64 most_ms) {
  std::string const ms = std::to_string(most_ms);
  for (const auto &connection : connections_)
    ValueOrThrow((*connection)->Command({"CLIENT", "PAUSE", ms, "WRITE"}));
}

void Masters::Resume() {
  for (const auto &connection : connections_) ValueOrThrow((*connection)->Command({"CLIENT", "UNPAUSE"}));
}

std::vector<redis::ReplicationPoint> Masters::FetchPoints() {
  std::vector<redis::ReplicationPoint> points;
  for (const auto &connection : connections_) {
    auto const keys = ValueOrThrow(source::NamedKeys::Open(**connection, {}));
    points.push_back(ValueOrThrow(keys->FetchPoint()));
  }
  return points;
}

std::vector<FencedUser> Masters::FetchUsers(const std::vector<std::string> &names) {
  std::vector<FencedUser> users;
  for (const auto &connection : connections_) {
    redis::Connection &redis = **connection;
    redis::Reply const own = ValueOrThrow(redis.Command({"ACL", "WHOAMI"}));
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
      std::optional<Bytes> const rules = FieldOf(user, "commands").String();
      if (!rules) throw Failure(redis.UnknownReply("ACL GETUSER"));
      if (FieldOf(user, "selectors").size() > 0)
        throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                      "user \"" + shown + "\" has selectors, which may permit writes by themselves", "",
                      "redis-cli ACL SETUSER " + shown + " clearselectors, or fence => 'kill'.");
      users.push_back({connection->node().id, name, std::string(*rules)});
    }
  }
  return users;
}

void Masters::TakeWrite(const std::vector<FencedUser> &users) {
  for (const auto &connection : connections_)
    for (const FencedUser &user : users)
      if (user.node == connection->node().id)
        ValueOrThrow((*connection)->Command({"ACL", "SETUSER", user.name, "-@write"}));
}

void Masters::GiveBack(const std::vector<FencedUser> &users) {
  for (const auto &connection : connections_) {
    redis::Connection &redis = **connection;
    for (const FencedUser &user : users) {
      if (user.node != connection->node().id) continue;
      // SETUSER would create it.
      if (ValueOrThrow(redis.Command({"ACL", "GETUSER", user.name})).IsNil()) continue;
      std::vector<std::string> const rules = Words(user.rules);
      std::vector<Bytes> arguments = {"ACL", "SETUSER", user.name};
      arguments.insert(arguments.end(), rules.begin(), rules.end());
      redis.Append(arguments.data(), arguments.size());
      redis::Reply const reply = ValueOrThrow(redis.Receive());
      if (reply.IsError()) throw Failure(redis.ToError(reply));
    }
  }
}

void Masters::KillClients() {
  for (const auto &connection : connections_)
    ValueOrThrow((*connection)->Command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}));
}

}  // namespace prm
