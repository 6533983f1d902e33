// A connection to one Redis server: commands, one at a time or pipelined.
#pragma once

#include <cstddef>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "core/text_gate.h"
#include "redis/address_rule.h"
#include "redis/deadline.h"
#include "redis/reply.h"
#include "redis/reply_guard.h"
#include "redis/reply_reader.h"
#include "redis/socket.h"
#include "redis/tls.h"
#include "redis/turn_window.h"
#include "redis/waiter.h"

namespace prm::redis {

struct ConnectionOptions {
  std::string host;
  int port = 6379;
  // For a host that a peer named, see Endpoint: `redirects` must then allow its address.
  std::optional<AddressKind> named;
  AddressRule redirects;
  std::string unix_path;  // when not empty, host, port and tls are not used
  TlsOptions tls;
  std::string username;                    // empty: Redis' default user
  std::string password;                    // no AUTH when user name and password are empty
  std::vector<std::string> other_secrets;  // masked in texts of the peer, like the password
  int database = 0;
  long connect_timeout_ms = 10000;  // for name, connection, TLS, AUTH and SELECT together
  long command_timeout_ms = 60000;  // without progress in either direction
};

class Connection {
 public:
  // Connects, does the TLS handshake, then AUTH, SELECT and CLIENT SETNAME, for CLIENT LIST. The waiter must
  // outlive the connection. Errors: those of Socket, TlsSession, kAuthFailure, and those of Command.
  static Result<std::unique_ptr<Connection>> Open(const ConnectionOptions& options, Waiter& waiter);

  // Another connection to the same address, opened as this one was. Errors: those of Open.
  Result<std::unique_ptr<Connection>> OpenAnother() const { return Open(options_, waiter_); }

  // Closes the socket without waiting.
  ~Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends a command and waits for its reply; nothing may be pending. An error reply becomes an error, see
  // ToError. Errors otherwise: those of Receive; kProtocol (something is pending).
  Result<Reply> Command(std::initializer_list<Bytes> arguments, const ReplyLimit& limit = kSmallReply);

  // Pipelining. Append queues a command without sending it. limit: the limit of its reply.
  void Append(const Bytes* arguments, size_t count, const ReplyLimit& limit = kSmallReply);
  void Append(std::initializer_list<Bytes> arguments, const ReplyLimit& limit = kSmallReply) {
    Append(arguments.begin(), arguments.size(), limit);
  }

  // Redis works through what it has read of one client, 16 kB or from 7.0 on 32, before it looks at the next
  // one. So that others need not wait for long, commands can be divided into turns, of which only a few are
  // under way at a time. This ends one with the commands appended so far.
  void EndTurn();

  // At most so many turns are under way, at least one; at first it is one.
  void AllowTurns(size_t turns) { turns_.Allow(turns); }

  // Sends what the socket takes without waiting, so that Redis can work while the caller is busy. The next
  // Receive reports a failure.
  void Flush();

  // Takes what has arrived and sends what may follow it, without waiting or calling the waiter; nothing, once
  // so many bytes have been taken for which there was no Receive. The next Receive reports a failure.
  void Proceed(uint64_t most_held);

  // Receives the reply to the oldest pending command, waiting for it if necessary; queued commands are sent
  // meanwhile. An error reply is a Reply too, so it does not end the pipeline. The waiter is called now and
  // then, however fast the server sends. Errors: kTimeout (command_timeout_ms without progress),
  // kConnectionFailure (lost), kProtocol (not RESP2; none is pending), kTooLarge (beyond its limit, or no
  // memory for it). After any of these, and after an exception of the waiter, the connection is broken and
  // every call fails.
  Result<Reply> Receive();

  // Whether Receive would return at once, with a reply or an error. Takes what has arrived, without waiting.
  bool HasArrived();

  // The reply to the oldest pending command, if it has arrived; none also after a failure, which the next
  // Receive reports. Neither waits nor calls the waiter.
  std::optional<Reply> TakeArrived();

  // After PSYNC come bytes, no longer commands and replies. SendRaw queues bytes as they are; ReadRaw sends
  // what is queued and waits for at least one byte, of which it copies at most `size`. With wait_ms it waits
  // no longer and returns 0 if no byte came. Nothing may be pending, and no command can follow. Errors:
  // kTimeout (command_timeout_ms without a byte, over all calls), kConnectionFailure, kProtocol (something is
  // pending).
  void SendRaw(Bytes bytes) { output_ += bytes; }
  Result<size_t> ReadRaw(char* to, size_t size, std::optional<long> wait_ms = std::nullopt);

  // After SUBSCRIBE the server sends messages by itself. To be called before that, with the limit of each.
  void ExpectMessages(const ReplyLimit& limit) { guard_.ExpectMessages(limit); }

  // Sends what SendRaw has queued and waits at most wait_ms for the next message; nullopt: none came. What
  // answers a command that SendRaw queued is a message, too. No command may be pending, and none can follow.
  // Errors: those of Receive; kTimeout counts from the last byte, over all calls.
  Result<std::optional<Reply>> ReceiveMessage(long wait_ms);

  // Converts the error reply that Receive returned last to an error. The message has the command's name and
  // the address, the detail Redis' own words without the arguments that Redis may quote. kAuthFailure:
  // NOAUTH, WRONGPASS, refused AUTH. kPermissionDenied: NOPERM. kUnavailable: LOADING, MASTERDOWN,
  // NOMASTERLINK, BUSY, TRYAGAIN, CLUSTERDOWN, too many clients. kMoved: MOVED, ASK. Anything else:
  // kServerError.
  Error ToError(const Reply& reply) const { return ToError(reply.ErrorText(), last_name_); }

  // As above, for the text of an error reply, without its "-".
  Error ToError(Bytes text, Bytes command) const;

  // "Redis at … answered COMMAND in an unknown form": its reply has an unexpected type or shape.
  Error UnknownReply(Bytes command) const;

  // All text of the peer that a message, table or view shows passes this gate.
  const TextGate& gate() const { return gate_; }

  // The waiter of all its waits.
  Waiter& waiter() const { return waiter_; }

  // Commands appended whose replies have not been received.
  size_t pending() const { return names_.size(); }

  // "10.0.0.5:6379", "[::1]:6379" or the path of the unix socket.
  const std::string& address() const { return address_; }

  // The kind of the address of the host that the user named: this one, or the one that led to it.
  AddressKind named() const { return named_; }

  // "TLSv1.3 with TLS_AES_256_GCM_SHA384"; empty: plain text.
  std::string encryption() const { return tls_ ? tls_->Description() : std::string(); }

 private:
  Connection(Socket socket, std::string address, const ConnectionOptions& options, Waiter& waiter);

  Status Greet(const ConnectionOptions& options, const Deadline& deadline);
  Result<Reply> Receive(const Deadline* deadline);
  Status ReadReply(std::optional<Reply>& reply);
  void EndCommand();
  Status Feed(const char* bytes, size_t size);
  Result<size_t> ReadBytes(char* to, size_t size);
  Result<bool> ReadSome();
  bool WriteSome();
  size_t MaySend();
  bool WaitForProgress(const Deadline& deadline);
  Error TimedOut(const std::string& lacking, const Deadline& deadline);
  void Wait(WaitSocket* sockets, size_t count, long timeout_ms);
  Error Break(Error error);
  Error Refuse(Error error);
  Error Lost(const std::string& reason);

  IoResult Read(char* buffer, size_t size) {
    return tls_ ? tls_->Read(buffer, size) : socket_.Read(buffer, size);
  }
  IoResult Write(const char* bytes, size_t size) {
    return tls_ ? tls_->Write(bytes, size) : socket_.Write(bytes, size);
  }

  Socket socket_;
  std::unique_ptr<TlsSession> tls_;        // none: plain text
  unsigned read_waits_for_ = kWaitRead;    // WaitEvent bits: TLS may have to write before it can read,
  unsigned write_waits_for_ = kWaitWrite;  // and the other way round
  std::string address_;
  ConnectionOptions options_;
  AddressKind named_;
  Waiter& waiter_;
  TextGate gate_;
  ReplyGuard guard_;
  ReplyReader reader_;
  size_t read_unwaited_ = 0;             // bytes since the waiter was last called
  std::optional<Deadline> raw_silence_;  // of ReadRaw and ReceiveMessage, since the last byte
  std::string output_;                   // commands, of which output_sent_ bytes are sent
  size_t output_sent_ = 0;
  uint64_t output_gone_ = 0;       // bytes that were in it before
  TurnWindow turns_;               // of what was and is in it
  bool output_failed_ = false;     // sending has failed, but there may still be replies to read
  std::deque<std::string> names_;  // of the commands without a reply, oldest first
  std::string last_name_;          // of the command whose reply was received last
  std::optional<Error> broken_;    // why the connection is broken
};

}  // namespace prm::redis
