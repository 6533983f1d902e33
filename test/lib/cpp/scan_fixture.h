// The fixture of the tests of the scan.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_proxy.h"
#include "lib/cpp/redis_server.h"
#include "redis/connection.h"
#include "source/scan.h"

namespace prm::test {

// Decides with a function; without one, everything is read.
class FunctionFilter : public source::KeyFilter {
 public:
  source::KeyDecision Classify(int db, Bytes key) override {
    ++classified;
    return {decide ? decide(db, key) : source::Interest::kRead, RouteOf(key)};
  }
  static uint64_t RouteOf(Bytes key) { return std::hash<Bytes>()(key); }
  std::function<source::Interest(int, Bytes)> decide;
  size_t classified = 0;
};

// Key by database and name.
using Name = std::pair<int, std::string>;

class ScanFixture : public testing::Test {
 protected:
  using Arguments = RedisProxy::Arguments;

  ScanFixture() : ScanFixture(std::vector<std::string>()) {}
  explicit ScanFixture(std::vector<std::string> arguments)
      : server_(std::move(arguments)), client_(server_.port()) {
    connection_options_.host = "127.0.0.1";
    connection_options_.port = server_.port();
    connection_options_.command_timeout_ms = 20000;
    options_.databases = {0};
  }

  std::unique_ptr<redis::Connection> Connect(redis::Waiter& waiter) {
    auto connection = redis::Connection::Open(connection_options_, waiter);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }
  std::unique_ptr<redis::Connection> Connect() { return Connect(waiter_); }

  std::unique_ptr<source::ScanSource> Open(redis::Connection& connection, const std::string& position = {}) {
    auto source = source::ScanSource::Open(connection, options_, filter_, position);
    if (!source.ok()) throw std::runtime_error(source.error().message + ": " + source.error().detail);
    return std::move(source.value());
  }

  // Reads to the end. Every name must come once.
  std::map<Name, source::Entry> ReadAll(source::Source& source) {
    std::map<Name, source::Entry> entries;
    for (source::Batch batch; Next(source, batch);) Take(batch, entries);
    return entries;
  }

  static bool Next(source::Source& source, source::Batch& batch) {
    auto next = source.Next(batch);
    if (!next.ok()) throw std::runtime_error(next.error().message + ": " + next.error().detail);
    return next.value();
  }

  static void Take(source::Batch& batch, std::map<Name, source::Entry>& entries) {
    for (source::Entry& entry : batch.entries) {
      const Name name(entry.db, entry.key);
      EXPECT_EQ(entry.route, FunctionFilter::RouteOf(entry.key));
      EXPECT_TRUE(entries.emplace(name, std::move(entry)).second) << "twice: " << name.second;
    }
  }

  // "key:0" to "key:<count - 1>" in the selected database, each with a value of `size` bytes.
  void Populate(int count, int size = 10) {
    client_.Command({"EVAL",
                     "for i = 0, ARGV[1] - 1 do redis.call('SET', 'key:' .. i, string.rep('v', ARGV[2])) end",
                     "0", std::to_string(count), std::to_string(size)});
  }

  // Gives the database a key with an expiry, which is not read, so that a scan asks for the expiry of every
  // key.
  void KeepExpiring() {
    client_.Command({"SET", "expiring", "", "PXAT", "4102444800000"});
    filter_.decide = [](int, Bytes key) {
      return key == "expiring" ? source::Interest::kIgnore : source::Interest::kRead;
    };
  }

  // Scans through a proxy that calls `before` for each command that reads a key.
  std::map<Name, source::Entry> ScanWith(const std::function<void(const std::vector<Arguments>&)>& before) {
    const RedisProxy proxy(server_.port(), before);
    connection_options_.port = proxy.port();
    const auto connection = Connect();
    connection_options_.port = server_.port();
    return ReadAll(*Open(*connection));
  }

  // Scans through a proxy that answers some commands itself.
  std::map<Name, source::Entry> ScanInstead(std::function<std::string(const Arguments&)> instead) {
    const RedisProxy proxy(
        server_.port(), [](const std::vector<Arguments>&) {}, {}, std::move(instead));
    connection_options_.port = proxy.port();
    const auto connection = Connect();
    connection_options_.port = server_.port();
    return ReadAll(*Open(*connection));
  }

  // Calls `action` before the n-th command of that kind for the key.
  static std::function<void(const std::vector<Arguments>&)> Before(const std::string& command,
                                                                   const std::string& key, int n,
                                                                   const std::function<void()>& action) {
    return [=, seen = 0](const std::vector<Arguments>& queue) mutable {
      if (queue[0].size() > 1 && queue[0][0] == command && queue[0][1] == key && ++seen == n) action();
    };
  }

  // How often the server has carried out a command, named in lower case, since it was started.
  long Calls(const std::string& command) {
    const std::string stats = client_.String({"INFO", "commandstats"});
    const std::string prefix = "cmdstat_" + command + ":calls=";
    const size_t at = stats.find(prefix);
    return at == std::string::npos ? 0 : std::stol(stats.substr(at + prefix.size()));
  }

  RedisServer server_;
  RedisClient client_;
  PollWaiter waiter_;
  FunctionFilter filter_;
  redis::ConnectionOptions connection_options_;
  source::ScanOptions options_;
};

}  // namespace prm::test
