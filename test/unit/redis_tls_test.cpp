#include "redis/tls.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <sys/stat.h>

#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "lib/cpp/certificates.h"
#include "lib/cpp/listener.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/connection.h"

namespace prm::redis {
namespace {

// A redis-server with a port for TLS beside the plain one.
class TlsServer {
 public:
  TlsServer(const test::Certificates& certificates, const std::string& name, const std::string& clients)
      : port_(test::RedisServer::FreePort()),
        server_({"--tls-port", std::to_string(port_), "--tls-cert-file", certificates.certificate(name),
                 "--tls-key-file", certificates.key(name), "--tls-ca-cert-file",
                 certificates.certificate("ca"), "--tls-auth-clients", clients}) {}

  int port() const { return port_; }
  int plain_port() const { return server_.port(); }
  test::RedisServer& server() { return server_; }

 private:
  int port_;
  test::RedisServer server_;
};

// Accepts one client and lets a function treat it; the function owns the socket.
class Peer {
 public:
  explicit Peer(std::function<void(int)> treat)
      : thread_([this, treat = std::move(treat)] { treat(accept(listener_.fd(), nullptr, nullptr)); }) {}
  ~Peer() { thread_.join(); }
  int port() const { return listener_.port(); }

 private:
  test::Listener listener_;
  std::thread thread_;
};

// Forwards what client and server of this port say until the server has said so many bytes, and hangs up.
void ForwardUntil(int client, int port, size_t bytes) {
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  ASSERT_EQ(connect(server, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  pollfd ends[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
  char buffer[4096];
  for (bool open = true; open && bytes > 0;) {
    poll(ends, 2, -1);
    for (int i = 0; i < 2; ++i) {
      if (ends[i].revents == 0) continue;
      const size_t most = i == 1 ? std::min(bytes, sizeof(buffer)) : sizeof(buffer);
      const ssize_t count = recv(ends[i].fd, buffer, most, 0);
      open = count > 0 && send(ends[1 - i].fd, buffer, static_cast<size_t>(count), MSG_NOSIGNAL) == count;
      if (!open) break;
      if (i == 1) bytes -= static_cast<size_t>(count);
    }
  }
  close(server);
  close(client);
}

class TlsTest : public testing::Test {
 protected:
  TlsTest() { certificates_.Make("server", "DNS:redis.example,DNS:localhost,IP:127.0.0.1"); }

  ConnectionOptions To(int port, TlsMode mode = TlsMode::kVerifyFull) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.connect_timeout_ms = 20000;
    options.command_timeout_ms = 20000;
    options.tls.mode = mode;
    options.tls.ca_file = certificates_.certificate("ca");
    return options;
  }

  ConnectionOptions WithClientCertificate(ConnectionOptions options, const std::string& name) {
    options.tls.certificate_file = certificates_.certificate(name);
    options.tls.key_file = certificates_.key(name);
    return options;
  }

  std::unique_ptr<Connection> Connected(const ConnectionOptions& options) {
    auto connection = Connection::Open(options, waiter_);
    if (connection.ok()) return std::move(connection.value());
    throw std::runtime_error(connection.error().message + ": " + connection.error().detail);
  }

  void ExpectPong(const ConnectionOptions& options) {
    const auto reply = Connected(options)->Command({"PING"});
    ASSERT_TRUE(reply.ok()) << reply.error().message << reply.error().detail;
    EXPECT_EQ(reply.value().StatusText(), "PONG");
  }

  Error Refused(const ConnectionOptions& options) {
    const auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) {
      EXPECT_EQ(ERR_peek_error(), 0UL) << "left in OpenSSL's queue";
      return connection.error();
    }
    ADD_FAILURE() << "connected";
    return {};
  }

  static std::string RefusedCertificate(const std::string& reason, const std::string& subject) {
    return "The server's certificate was refused: " + reason + ". It has " + subject + ".";
  }

  test::Certificates certificates_;
  test::PollWaiter waiter_;
};

TEST_F(TlsTest, VerifiesAnAddressAndAName) {
  const TlsServer server(certificates_, "server", "no");
  ExpectPong(To(server.port()));
  ConnectionOptions by_name = To(server.port());
  by_name.host = "localhost";
  ExpectPong(by_name);
  by_name.tls.server_name = "redis.example";
  ExpectPong(by_name);
}

TEST_F(TlsTest, CarriesLargeValuesBothWays) {
  const TlsServer server(certificates_, "server", "no");
  const auto connection = Connected(To(server.port()));
  std::string value(100 << 20, '\0');
  for (size_t i = 0; i < value.size(); i += 997) value[i] = static_cast<char>(i / 997);
  ASSERT_TRUE(connection->Command({"SET", "large", value}).ok());
  const auto reply = connection->Command({"GET", "large"}, {uint64_t{200} << 20});
  ASSERT_TRUE(reply.ok()) << reply.error().detail;
  EXPECT_TRUE(reply.value().String() == value);
}

TEST_F(TlsTest, PipelinesInBothDirectionsAtOnce) {
  const TlsServer server(certificates_, "server", "no");
  const auto connection = Connected(To(server.port()));
  const std::string value(1 << 20, 'v');
  for (int i = 0; i < 40; ++i) connection->Append({"ECHO", value}, kLargeReply);
  for (int i = 0; i < 40; ++i) {
    const auto reply = connection->Receive();
    ASSERT_TRUE(reply.ok()) << reply.error().detail;
    ASSERT_EQ(reply.value().String()->size(), value.size());
  }
}

TEST_F(TlsTest, AWrongNameIsRefusedUnlessItIsNotVerified) {
  certificates_.Make("elsewhere", "DNS:elsewhere.example");
  const TlsServer server(certificates_, "elsewhere", "no");
  ConnectionOptions options = To(server.port());
  options.host = "localhost";
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kConnectionFailure);
  EXPECT_EQ(error.message,
            "could not establish TLS with Redis at localhost:" + std::to_string(server.port()));
  EXPECT_EQ(error.detail, RefusedCertificate("hostname mismatch",
                                             "subject \"CN=elsewhere\", names \"DNS:elsewhere.example\"") +
                              " It should be issued for \"localhost\".");
  EXPECT_EQ(error.hint,
            "If it is the server you mean, set its option tls_server_name to a name of the certificate.");
  EXPECT_NE(Refused(To(server.port())).detail.find("IP address mismatch"), std::string::npos);

  options.tls.server_name = "elsewhere.example";
  ExpectPong(options);
  ExpectPong(To(server.port(), TlsMode::kVerifyCa));
  ExpectPong(To(server.port(), TlsMode::kRequire));
}

TEST_F(TlsTest, APasswordInACertificateIsMasked) {
  certificates_.Make("topsecret", "DNS:topsecret.example");
  const TlsServer server(certificates_, "topsecret", "no");
  ConnectionOptions options = To(server.port());
  options.password = "topsecret";
  EXPECT_NE(Refused(options).detail.find("subject \"CN=***\", names \"DNS:***.example\""), std::string::npos)
      << Refused(options).detail;
}

TEST_F(TlsTest, AnUnknownAuthorityIsRefusedUnlessItIsNotVerified) {
  certificates_.MakeAuthority("other");
  certificates_.Make("stranger", "IP:127.0.0.1", "other");
  const TlsServer server(certificates_, "stranger", "no");
  for (const TlsMode mode : {TlsMode::kVerifyFull, TlsMode::kVerifyCa}) {
    const Error error = Refused(To(server.port(), mode));
    EXPECT_EQ(error.detail, RefusedCertificate("unable to get local issuer certificate",
                                               "subject \"CN=stranger\", names \"IP Address:127.0.0.1\""));
    EXPECT_EQ(error.hint,
              "Set option ca_file of the server to the certificates of the authority that signed it.");
  }
  ExpectPong(To(server.port(), TlsMode::kRequire));
  ConnectionOptions trusting = To(server.port());
  trusting.tls.ca_file = certificates_.certificate("other");
  ExpectPong(trusting);
  trusting.tls.ca_file.clear();  // the system does not know it
  EXPECT_NE(Refused(trusting).detail.find("unable to get local issuer"), std::string::npos);
}

TEST_F(TlsTest, AnExpiredCertificateIsRefused) {
  certificates_.Make("old", "IP:127.0.0.1", "ca", -1);
  const TlsServer server(certificates_, "old", "no");
  const Error error = Refused(To(server.port()));
  EXPECT_EQ(error.detail, RefusedCertificate("certificate has expired",
                                             "subject \"CN=old\", names \"IP Address:127.0.0.1\""));
  EXPECT_EQ(error.hint, "Renew the certificate of the Redis server.");
}

TEST_F(TlsTest, ShowsItsCertificateToAServerThatAsks) {
  certificates_.Make("client", "");
  const TlsServer server(certificates_, "server", "yes");
  ExpectPong(WithClientCertificate(To(server.port()), "client"));

  const Error none = Refused(To(server.port()));
  EXPECT_EQ(none.code, ErrorCode::kConnectionFailure);
  EXPECT_EQ(none.hint, "If the server asks for a certificate, set tls_cert and tls_key of the user mapping.");

  certificates_.MakeAuthority("other");
  certificates_.Make("impostor", "", "other");
  const Error impostor = Refused(WithClientCertificate(To(server.port()), "impostor"));
  EXPECT_EQ(impostor.code, ErrorCode::kConnectionFailure);
  EXPECT_NE(impostor.message.find("connection to Redis at"), std::string::npos);
}

TEST_F(TlsTest, FilesThatCannotBeUsedAreNamed) {
  certificates_.Make("client", "");
  certificates_.Make("another", "");
  const TlsServer server(certificates_, "server", "no");
  const auto refused = [&](const std::function<void(TlsOptions&)>& change) {
    ConnectionOptions options = WithClientCertificate(To(server.port()), "client");
    change(options.tls);
    const Error error = Refused(options);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
    return error.message + ": " + error.detail;
  };
  EXPECT_EQ(refused([](TlsOptions& tls) { tls.ca_file = "/nonexistent/ca"; }),
            "could not use ca_file \"/nonexistent/ca\": No such file or directory.");
  EXPECT_EQ(refused([](TlsOptions& tls) { tls.certificate_file = "/nonexistent/crt"; }),
            "could not use tls_cert \"/nonexistent/crt\": No such file or directory.");
  EXPECT_EQ(refused([](TlsOptions& tls) { tls.key_file = "/nonexistent/key"; }),
            "could not use tls_key \"/nonexistent/key\": No such file or directory.");
  EXPECT_EQ(refused([](TlsOptions& tls) { tls.key_file = "/tmp"; }),
            "could not use tls_key \"/tmp\": It is not a regular file.");
  const std::string another = certificates_.key("another");
  EXPECT_EQ(refused([&](TlsOptions& tls) { tls.key_file = another; }),
            "could not use tls_key \"" + another + "\": key values mismatch.");
  // The key is no certificate; what is in it must not show.
  EXPECT_EQ(refused([&](TlsOptions& tls) { tls.certificate_file = another; }),
            "could not use tls_cert \"" + another + "\": no start line.");
  ASSERT_EQ(chmod(certificates_.key("client").c_str(), 0660), 0);
  EXPECT_NE(refused([](TlsOptions&) {}).find("Others may read or write it."), std::string::npos);
}

TEST_F(TlsTest, SaysWhenOnlyOneSideExpectsTls) {
  const TlsServer server(certificates_, "server", "no");
  ConnectionOptions plain = To(server.port(), TlsMode::kOff);
  const Error expected = Refused(plain);
  EXPECT_EQ(expected.hint, "If the port expects TLS, set the server's option tls 'on'.") << expected.message;

  ConnectionOptions tls = To(server.plain_port());
  tls.connect_timeout_ms = 500;  // Redis may wait for the end of what it takes for a line
  const Error unexpected = Refused(tls);
  EXPECT_EQ(
      unexpected.hint,
      "If the port does not expect TLS, set the server's option port to the one that does, or tls 'off'.")
      << unexpected.message;
}

TEST_F(TlsTest, AConnectionCutWithinARecordIsLost) {
  const TlsServer server(certificates_, "server", "no");
  test::RedisClient(server.plain_port()).Command({"SET", "large", std::string(1 << 20, 'v')});
  const Peer peer([&](int client) { ForwardUntil(client, server.port(), 300001); });
  const auto connection = Connected(To(peer.port()));
  const auto reply = connection->Command({"GET", "large"}, {uint64_t{200} << 20});
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code, ErrorCode::kConnectionFailure);
  EXPECT_EQ(reply.error().detail, "TLS: unexpected eof while reading.");
  EXPECT_EQ(ERR_peek_error(), 0UL);
}

TEST_F(TlsTest, AServerThatNeverShakesHandsIsATimeout) {
  const test::Listener listener;  // the kernel accepts the connection
  ConnectionOptions options = To(listener.port());
  options.connect_timeout_ms = 300;
  const auto start = std::chrono::steady_clock::now();
  const Error error = Refused(options);
  EXPECT_EQ(error.code, ErrorCode::kTimeout);
  EXPECT_EQ(error.message, "Redis at 127.0.0.1:" + std::to_string(listener.port()) +
                               " did not complete the TLS handshake within 300 ms");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1300));
}

class InterruptedWaiter : public test::PollWaiter {
 public:
  int Wait(WaitSocket* /*sockets*/, size_t /*count*/, long /*timeout_ms*/) override {
    throw std::runtime_error("interrupted");
  }
};

TEST_F(TlsTest, AnInterruptEndsTheHandshake) {
  const test::Listener listener;
  InterruptedWaiter waiter;
  EXPECT_THROW((void)Connection::Open(To(listener.port()), waiter), std::runtime_error);
}

// New keys: the client has to write before it may go on reading.
void ServeWithNewKeys(int client, const std::string& certificate, const std::string& key, size_t bytes) {
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  ASSERT_EQ(SSL_CTX_use_certificate_file(context.get(), certificate.c_str(), SSL_FILETYPE_PEM), 1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey_file(context.get(), key.c_str(), SSL_FILETYPE_PEM), 1);
  const std::unique_ptr<SSL, void (*)(SSL*)> session(SSL_new(context.get()), SSL_free);
  SSL_set_fd(session.get(), client);
  ASSERT_EQ(SSL_accept(session.get()), 1);
  char buffer[4096];
  ASSERT_GT(SSL_read(session.get(), buffer, sizeof(buffer)), 0);  // CLIENT SETNAME
  ASSERT_GT(SSL_write(session.get(), "+OK\r\n", 5), 0);
  ASSERT_GT(SSL_read(session.get(), buffer, sizeof(buffer)), 0);
  const std::string head = "$" + std::to_string(bytes) + "\r\n";
  ASSERT_GT(SSL_write(session.get(), head.data(), static_cast<int>(head.size())), 0);
  const std::string piece(1000, 'k');
  for (size_t sent = 0; sent < bytes; sent += piece.size()) {
    ASSERT_EQ(SSL_key_update(session.get(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_GT(SSL_write(session.get(), piece.data(), static_cast<int>(piece.size())), 0);
  }
  ASSERT_GT(SSL_write(session.get(), "\r\n", 2), 0);
  SSL_read(session.get(), buffer, sizeof(buffer));  // until the client goes
  close(client);
}

TEST_F(TlsTest, FollowsChangesOfKeys) {
  constexpr size_t kBytes = 200000;
  const Peer peer([&](int client) {
    ServeWithNewKeys(client, certificates_.certificate("server"), certificates_.key("server"), kBytes);
  });
  const auto reply = Connected(To(peer.port()))->Command({"GET", "any"});
  ASSERT_TRUE(reply.ok()) << reply.error().detail;
  EXPECT_EQ(reply.value().String(), std::string(kBytes, 'k'));
}

}  // namespace
}  // namespace prm::redis
