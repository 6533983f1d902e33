#include "redis/connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "lib/cpp/listener.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/error_words.h"

namespace prm::redis {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

class ConnectionTest : public testing::Test {
 protected:
  static ConnectionOptions To(int port) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.connect_timeout_ms = 5000;
    options.command_timeout_ms = 5000;
    return options;
  }

  // The error of a connection that must not come about.
  Error Refused(const ConnectionOptions& options) {
    const auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) return connection.error();
    ADD_FAILURE() << "connected";
    return {};
  }

  std::unique_ptr<Connection> Connected(const ConnectionOptions& options) {
    auto connection = Connection::Open(options, waiter_);
    if (connection.ok()) return std::move(connection.value());
    throw std::runtime_error(connection.error().message + ": " + connection.error().detail);
  }

  static std::string Text(const Result<Reply>& reply) {
    if (!reply.ok()) return "error: " + reply.error().message;
    return std::string(reply.value().String().value_or(reply.value().StatusText().value_or("neither")));
  }

  static void ExpectNoSecret(const Error& error, const std::string& secret) {
    EXPECT_EQ((error.message + error.detail + error.hint).find(secret), std::string::npos)
        << error.message << error.detail;
  }

  test::PollWaiter waiter_;
};

TEST_F(ConnectionTest, SendsBytesAsTheyAre) {
  const test::RedisServer server;
  const auto connection = Connected(To(server.port()));
  const std::string key("k\0\r\n$1", 6);
  const std::string value("\0\xff*3\r\n", 6);
  EXPECT_EQ(Text(connection->Command({"SET", key, value})), "OK");
  EXPECT_EQ(Text(connection->Command({"GET", key})), value);
  EXPECT_EQ(Text(connection->Command({"ECHO", ""})), "");
  EXPECT_EQ(test::RedisClient(server.port()).String({"GET", key}), value);
  EXPECT_EQ(connection->pending(), 0U);
}

// The number in a line of INFO; -1: it has none.
int64_t Figure(test::RedisClient& client, const std::string& section, const std::string& name) {
  const std::string info = client.String({"INFO", section});
  const size_t at = info.find(name);
  return at == std::string::npos ? -1 : std::stol(info.substr(at + name.size()));
}

TEST_F(ConnectionTest, RedisReadsATurnAtATime) {
  const test::RedisServer server;
  test::RedisClient client(server.port());
  const auto connection = Connected(To(server.port()));
  const auto reads = [&] { return Figure(client, "stats", "total_reads_processed:"); };  // from Redis 6.0 on
  const int64_t before = reads();
  const std::string large(300000, 'v');
  for (int i = 0; i < 30; ++i) {
    connection->Append({"ECHO", std::to_string(i)});
    connection->Append({"ECHO", i == 7 ? large : std::string()});
    connection->EndTurn();
  }
  connection->Append({"ECHO", "the rest"});
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(Text(connection->Receive()), std::to_string(i));
    EXPECT_EQ(Text(connection->Receive()), i == 7 ? large : std::string());
  }
  EXPECT_EQ(Text(connection->Receive()), "the rest");
  if (before >= 0) EXPECT_GE(reads() - before, 30);
  EXPECT_EQ(Text(connection->Command({"PING"})), "PONG");
}

TEST_F(ConnectionTest, TurnsGoOnWhileNobodyWaits) {
  const test::RedisServer server;
  test::RedisClient client(server.port());
  const auto connection = Connected(To(server.port()));
  const auto echoes = [&] { return Figure(client, "commandstats", "cmdstat_echo:calls="); };
  const auto wait_for = [&](int64_t count) {
    for (int i = 0; i < 5000 && echoes() < count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  connection->Proceed(1);  // nothing is pending
  for (const char* text : {"a", "b", "c"}) {
    connection->Append({"ECHO", text});
    connection->EndTurn();
  }
  connection->Flush();
  wait_for(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(echoes(), 1);
  for (int64_t count = 2; count <= 3; ++count) {
    for (int i = 0; i < 5000 && echoes() < count; ++i) {
      connection->Proceed(1000);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(echoes(), count);
  }
  std::optional<Reply> first;
  for (int i = 0; i < 5000 && !first; ++i) {
    first = connection->TakeArrived();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(first);
  EXPECT_EQ(first->String(), "a");
  EXPECT_EQ(Text(connection->Receive()), "b");
  EXPECT_EQ(Text(connection->Receive()), "c");
  EXPECT_FALSE(connection->TakeArrived());
}

TEST_F(ConnectionTest, HoldsNoMoreThanAllowedWhileNobodyReceives) {
  const test::RedisServer server;
  test::RedisClient client(server.port());
  const auto connection = Connected(To(server.port()));
  const std::string text(100000, 'v');
  for (int i = 0; i < 5; ++i) {
    connection->Append({"ECHO", text});
    connection->EndTurn();
  }
  connection->Flush();
  const auto proceed_to = [&](int64_t count, uint64_t most_held) {
    int64_t echoes = 0;
    for (int i = 0; i < 5000 && echoes < count; ++i) {
      connection->Proceed(most_held);
      echoes = Figure(client, "commandstats", "cmdstat_echo:calls=");
    }
    return echoes;
  };
  EXPECT_EQ(proceed_to(2, text.size() + 1), 2);
  for (int i = 0; i < 50; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(proceed_to(1, text.size() + 1), 2);  // the second has not been taken whole
  }
  EXPECT_EQ(proceed_to(5, 10 * text.size()), 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Text(connection->Receive()), text);
}

TEST_F(ConnectionTest, ReadsEveryKindOfReply) {
  const test::RedisServer server;
  const auto connection = Connected(To(server.port()));
  const auto reply =
      connection->Command({"EVAL", "return {1, 'a', false, {-7, {'b'}}, redis.status_reply('fine')}", "0"});
  ASSERT_TRUE(reply.ok()) << reply.error().detail;
  ASSERT_TRUE(reply.value().IsArray());
  ASSERT_EQ(reply.value().size(), 5U);
  EXPECT_EQ(reply.value().element(0).Integer(), 1);
  EXPECT_TRUE(reply.value().element(1).IsString());
  EXPECT_EQ(reply.value().element(1).String(), "a");
  EXPECT_TRUE(reply.value().element(2).IsNil());
  EXPECT_EQ(reply.value().element(3).element(0).Integer(), -7);
  EXPECT_EQ(reply.value().element(3).element(1).element(0).String(), "b");
  EXPECT_TRUE(reply.value().element(4).IsStatus());
  EXPECT_EQ(reply.value().element(4).StatusText(), "fine");
  EXPECT_EQ(reply.value().element(0).size(), 0U);
}

TEST_F(ConnectionTest, NamesItself) {
  const test::RedisServer server;
  const auto connection = Connected(To(server.port()));
  EXPECT_EQ(Text(connection->Command({"CLIENT", "GETNAME"})), "pg_redis_migrate");
}

TEST_F(ConnectionTest, SelectsTheDatabase) {
  const test::RedisServer server;
  ConnectionOptions options = To(server.port());
  options.database = 3;
  Connected(options)->Command({"SET", "a", "1"}).ok();
  test::RedisClient client(server.port());
  EXPECT_EQ(client.Integer({"EXISTS", "a"}), 0);
  client.Command({"SELECT", "3"});
  EXPECT_EQ(client.Integer({"EXISTS", "a"}), 1);

  options.database = 99;
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kServerError);
  EXPECT_EQ(error.message,
            "Redis at 127.0.0.1:" + std::to_string(server.port()) + " refused command \"SELECT\"");
  EXPECT_EQ(error.detail, "ERR DB index is out of range");
}

TEST_F(ConnectionTest, ConnectsToAUnixSocket) {
  const test::RedisServer server;
  ConnectionOptions options;
  options.unix_path = server.unix_socket();
  const auto connection = Connected(options);
  EXPECT_EQ(Text(connection->Command({"PING"})), "PONG");
  EXPECT_EQ(connection->address(), server.unix_socket());

  options.unix_path = server.directory() + "/none";
  EXPECT_EQ(Refused(options).code, ErrorCode::kConnectionFailure);
  options.unix_path = "/" + std::string(200, 'x');
  EXPECT_EQ(Refused(options).code, ErrorCode::kInvalidArgument);
}

TEST_F(ConnectionTest, TriesEachAddressOfAName) {
  const test::RedisServer server;  // on 127.0.0.1 only, while localhost is often ::1 first
  ConnectionOptions options = To(server.port());
  options.host = "localhost";
  EXPECT_EQ(Text(Connected(options)->Command({"PING"})), "PONG");
}

TEST_F(ConnectionTest, AuthenticatesWithPasswordAlone) {
  const test::RedisServer server({"--requirepass", "s3cret"});
  ConnectionOptions options = To(server.port());
  options.password = "s3cret";
  options.database = 2;
  EXPECT_EQ(Text(Connected(options)->Command({"PING"})), "PONG");

  options.password = "not-s3cret";
  const Error wrong = Refused(options);
  EXPECT_EQ(wrong.code, ErrorCode::kAuthFailure);
  EXPECT_EQ(wrong.message,
            "authentication with Redis at 127.0.0.1:" + std::to_string(server.port()) + " failed");
  EXPECT_EQ(wrong.detail, "WRONGPASS invalid username-password pair or user is disabled.");
  ExpectNoSecret(wrong, "s3cret");

  options.password.clear();
  const Error missing = Refused(options);
  EXPECT_EQ(missing.code, ErrorCode::kAuthFailure);
  EXPECT_EQ(missing.detail, "NOAUTH Authentication required.");
  options.database = 0;  // nothing but CLIENT SETNAME is sent then
  EXPECT_EQ(Refused(options).code, ErrorCode::kAuthFailure);
}

// Our code knows some errors by their words, which a password may have, too.
TEST_F(ConnectionTest, KnowsErrorsWhateverThePassword) {
  for (const char* password : {"m", "multi", "unknown", "err unknown"}) {
    const test::RedisServer server({"--requirepass", password});
    ConnectionOptions options = To(server.port());
    options.password = password;
    const auto connection = Connected(options);
    EXPECT_EQ(connection->Command({"EXEC"}).error().detail, "ERR EXEC without MULTI") << password;
    const std::string unknown = connection->Command({"NOSUCH"}).error().detail;
    EXPECT_EQ(unknown.rfind(kUnknown, 0), 0U) << unknown;
  }
}

TEST_F(ConnectionTest, AuthenticatesAsAUser) {
  const test::RedisServer server;
  test::RedisClient client(server.port());
  client.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read"});
  client.Command({"ACL", "SETUSER", "open", "on", "nopass", "~*", "+@all"});
  ConnectionOptions options = To(server.port());
  options.username = "reader";
  options.password = "s3cret";
  const auto connection = Connected(options);  // although CLIENT is forbidden
  EXPECT_TRUE(connection->Command({"GET", "a"}).ok());
  const auto denied = connection->Command({"SET", "a", "private"});
  ASSERT_FALSE(denied.ok());
  EXPECT_EQ(denied.error().code, ErrorCode::kPermissionDenied);
  EXPECT_NE(denied.error().message.find("\"SET\""), std::string::npos);
  EXPECT_EQ(denied.error().detail.find("NOPERM"), 0U);
  EXPECT_TRUE(connection->Command({"GET", "a"}).ok());

  options.password = "wrong";
  EXPECT_EQ(Refused(options).code, ErrorCode::kAuthFailure);
  options.username = "open";
  options.password.clear();
  EXPECT_EQ(Text(Connected(options)->Command({"ACL", "WHOAMI"})), "open");
}

TEST_F(ConnectionTest, APasswordThatIsNotAskedForIsRefused) {
  const test::RedisServer server;
  ConnectionOptions options = To(server.port());
  options.password = "s3cret";
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kAuthFailure);
  ExpectNoSecret(error, "s3cret");
}

// Redis quotes the arguments of a command that it does not know.
TEST_F(ConnectionTest, KeepsTheSecretWhenAuthIsRenamed) {
  const test::RedisServer server({"--rename-command", "AUTH", "HIDDEN"});
  ConnectionOptions options = To(server.port());
  options.password = "s3cret";
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kAuthFailure);
  EXPECT_EQ(error.detail, "ERR unknown command 'AUTH'");
  const auto unknown = Connected(To(server.port()))->Command({"NOSUCH", "s3cret"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kServerError);
  ExpectNoSecret(unknown.error(), "s3cret");
}

TEST_F(ConnectionTest, ARefusedPortIsAConnectionFailure) {
  const int port = test::RedisServer::FreePort();
  const Error error = Refused(To(port));
  EXPECT_EQ(error.code, ErrorCode::kConnectionFailure);
  EXPECT_EQ(error.message, "could not connect to Redis at 127.0.0.1:" + std::to_string(port));
  EXPECT_EQ(error.detail, "127.0.0.1: Connection refused.");
}

TEST_F(ConnectionTest, AnAddressThatNeverAnswersIsATimeout) {
  test::Listener listener(0);
  listener.FillBacklog();
  ConnectionOptions options = To(listener.port());
  options.connect_timeout_ms = 400;
  const auto start = Clock::now();
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kTimeout);
  EXPECT_EQ(error.message,
            "could not connect to Redis at 127.0.0.1:" + std::to_string(listener.port()) + " within 400 ms");
  EXPECT_GE(MillisecondsSince(start), 399);
  EXPECT_LT(MillisecondsSince(start), 1400);
}

TEST_F(ConnectionTest, AUnixSocketWithAFullBacklogIsATimeout) {
  const test::RedisServer server;  // for its directory
  test::Listener listener(server.directory() + "/full.sock", 0);
  listener.FillBacklog();
  ConnectionOptions options;
  options.unix_path = server.directory() + "/full.sock";
  options.connect_timeout_ms = 400;
  const auto start = Clock::now();
  EXPECT_EQ(Refused(options).code, ErrorCode::kTimeout);
  EXPECT_GE(MillisecondsSince(start), 399);
  EXPECT_LT(MillisecondsSince(start), 1400);
}

TEST_F(ConnectionTest, AStoppedServerIsATimeoutWhileConnecting) {
  test::RedisServer server;
  server.Pause();  // the kernel still accepts connections
  ConnectionOptions options = To(server.port());
  options.connect_timeout_ms = 400;
  const auto start = Clock::now();
  EXPECT_EQ(Refused(options).code, ErrorCode::kTimeout);
  EXPECT_GE(MillisecondsSince(start), 399);
  EXPECT_LT(MillisecondsSince(start), 1400);
}

TEST_F(ConnectionTest, AStoppedServerIsATimeoutOfTheCommand) {
  test::RedisServer server;
  ConnectionOptions options = To(server.port());
  options.command_timeout_ms = 300;
  const auto connection = Connected(options);
  server.Pause();
  const auto start = Clock::now();
  const auto reply = connection->Command({"GET", "private"});
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(reply.error().message, "Redis at 127.0.0.1:" + std::to_string(server.port()) +
                                       " did not answer command \"GET\" within 300 ms");
  EXPECT_GE(MillisecondsSince(start), 299);
  EXPECT_LT(MillisecondsSince(start), 1300);
  // The late reply must not be taken for the answer to another command.
  server.Resume();
  const auto later = connection->Command({"PING"});
  ASSERT_FALSE(later.ok());
  EXPECT_EQ(later.error().code, ErrorCode::kTimeout);
}

TEST_F(ConnectionTest, ALoadingServerIsUnavailable) {
  test::RedisServer server(
      {"--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"});
  test::RedisClient client(server.port());
  client.Command({"DEBUG", "POPULATE", "5000", "key", "100"});
  client.Command({"CONFIG", "SET", "key-load-delay", "1000"});  // microseconds for each key
  const auto reloading = Connected(To(server.port()));
  reloading->Append({"DEBUG", "RELOAD"});
  reloading->Flush();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));

  const auto connection = Connected(To(server.port()));
  const auto reply = connection->Command({"GET", "key:1"});
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(reply.error().detail, "LOADING Redis is loading the dataset in memory");
}

TEST_F(ConnectionTest, AServerWithoutRoomIsUnavailable) {
  const test::RedisServer server({"--maxclients", "1"});
  const auto first = Connected(To(server.port()));
  const Error error = Refused(To(server.port()));
  EXPECT_EQ(error.code, ErrorCode::kUnavailable) << error.message;
  EXPECT_EQ(error.detail, "ERR max number of clients reached");
}

TEST_F(ConnectionTest, SomethingElseThanRedisIsAProtocolError) {
  const test::Listener listener;
  std::thread peer([&] {
    const int fd = accept(listener.fd(), nullptr, nullptr);
    const std::string answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
    EXPECT_EQ(write(fd, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
    char byte;
    while (read(fd, &byte, 1) > 0) continue;
    close(fd);
  });
  const Error error = Refused(To(listener.port()));
  peer.join();
  EXPECT_EQ(error.code, ErrorCode::kProtocol);
  EXPECT_EQ(error.message, "the server at 127.0.0.1:" + std::to_string(listener.port()) +
                               " does not speak the Redis protocol");
}

class InterruptedWaiter : public test::PollWaiter {
 public:
  int Wait(WaitSocket* sockets, size_t count, long timeout_ms) override {
    if (interrupted) throw std::runtime_error("interrupted");
    return PollWaiter::Wait(sockets, count, timeout_ms);
  }
  bool interrupted = false;
};

TEST_F(ConnectionTest, AnInterruptBreaksTheConnection) {
  test::RedisServer server;
  InterruptedWaiter waiter;
  auto connection = Connection::Open(To(server.port()), waiter);
  ASSERT_TRUE(connection.ok());
  server.Pause();  // so that there is something to wait for
  waiter.interrupted = true;
  EXPECT_THROW((void)connection.value()->Command({"ECHO", "first"}), std::runtime_error);
  waiter.interrupted = false;
  server.Resume();
  const auto reply = connection.value()->Command({"ECHO", "second"});
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, ErrorCode::kConnectionFailure);

  waiter.interrupted = true;
  server.Pause();
  EXPECT_THROW((void)Connection::Open(To(server.port()), waiter), std::runtime_error);
}

}  // namespace
}  // namespace prm::redis
