#include "redis/connection.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "core/printable.h"
#include "redis/error_words.h"

namespace prm::redis {

namespace {

// Bytes to read at once.
constexpr size_t kReadBytes = size_t{64} << 10;

// A buffer that has grown beyond this is freed once it is empty.
constexpr size_t kKeptBufferBytes = size_t{1} << 20;

// Bytes of an error that are shown.
constexpr size_t kMostShown = 200;

// If the server sends faster than replies are parsed, there is no wait. So after this many bytes the waiter
// is called to check for interrupts.
constexpr size_t kBytesBetweenWaits = size_t{1} << 20;

bool StartsWith(Bytes text, Bytes prefix) { return text.substr(0, prefix.size()) == prefix; }

ErrorCode CodeOf(Bytes words, Bytes command) {
  words = CauseOf(words);
  const Bytes kind = KindOf(words);
  for (const Bytes unavailable :
       {"LOADING", "MASTERDOWN", "NOMASTERLINK", "BUSY", "TRYAGAIN", "CLUSTERDOWN"}) {
    if (kind == unavailable) return ErrorCode::kUnavailable;
  }
  if (StartsWith(words, "ERR max number of clients")) return ErrorCode::kUnavailable;
  if (kind == "MOVED" || kind == "ASK") return ErrorCode::kMoved;
  if (kind == "NOPERM") return ErrorCode::kPermissionDenied;
  if (kind == "NOAUTH" || kind == "WRONGPASS" || command == "AUTH") return ErrorCode::kAuthFailure;
  return ErrorCode::kServerError;
}

// A length of RESP: "$11\r\n". Commands are arrays of bulk strings, redis.io/docs/reference/protocol-spec;
// hiredis formats them with sprintf, which would take half of the time of a scan.
void AppendLength(std::string& output, char type, size_t length) {
  char text[24];
  text[0] = type;
  char* end = std::to_chars(text + 1, text + sizeof(text) - 2, length).ptr;
  *end++ = '\r';
  *end++ = '\n';
  output.append(text, static_cast<size_t>(end - text));
}

// "ERR unknown command 'AUTH', with args beginning with: 'secret'": the arguments stay out of messages.
Bytes WithoutArguments(Bytes words) { return words.substr(0, words.find(", with args")); }

// A hint for a server that accepts the connection but does not answer like Redis.
std::string GreetingHint(ErrorCode code, const TlsOptions& tls) {
  const bool was_cut = code == ErrorCode::kConnectionFailure;
  if (tls.mode == TlsMode::kOff && (was_cut || code == ErrorCode::kProtocol)) {
    return "If the port expects TLS, set the server's option tls 'on'.";
  }
  if (was_cut && tls.certificate_file.empty()) {
    return "If the server asks for a certificate, set tls_cert and tls_key of the user mapping.";
  }
  return {};
}

std::vector<std::string> Secrets(const ConnectionOptions& options) {
  std::vector<std::string> secrets = options.other_secrets;
  secrets.push_back(options.password);
  return secrets;
}

// Whether a server that does what the command says answers +OK, or +QUEUED.
bool IsAnsweredByStatus(Bytes command) {
  constexpr Bytes kCommands[] = {"SELECT", "RESTORE", "AUTH", "WATCH", "MULTI", "READONLY", "RENAME"};
  return std::find(std::begin(kCommands), std::end(kCommands), command) != std::end(kCommands);
}

}  // namespace

Connection::Connection(Socket socket, std::string address, const ConnectionOptions& options, Waiter& waiter)
    : socket_(std::move(socket)),
      address_(std::move(address)),
      options_(options),
      named_(options.named ? *options.named : KindOf(socket_.PeerAddress())),
      waiter_(waiter),
      gate_(Secrets(options)),
      guard_(gate_) {}

Result<std::unique_ptr<Connection>> Connection::Open(const ConnectionOptions& options, Waiter& waiter) {
  const Deadline deadline(options.connect_timeout_ms);
  const bool is_unix = !options.unix_path.empty();
  Socket::Refuse refuse;
  if (options.named) {
    refuse = [&](const SocketAddress& to) -> std::optional<Error> {
      const bool is_verified = options.tls.mode == TlsMode::kVerifyFull;
      if (options.redirects.Allows(to, *options.named, is_verified)) return std::nullopt;
      return AddressRule::Refusal(HostAndPort(options.host, options.port), to, *options.named);
    };
  }
  Result<Socket> socket = is_unix ? Socket::ConnectUnix(options.unix_path, deadline, waiter)
                                  : Socket::ConnectTcp(options.host, options.port, deadline, waiter, refuse);
  if (!socket.ok()) return socket.error();
  std::string address = is_unix ? options.unix_path : HostAndPort(options.host, options.port);
  std::unique_ptr<Connection> connection(
      new Connection(std::move(socket.value()), std::move(address), options, waiter));
  const bool is_tls = !is_unix && options.tls.mode != TlsMode::kOff;
  if (is_tls) {
    auto tls = TlsSession::Open(connection->socket_, options.tls, options.host, connection->address_,
                                connection->gate_, deadline, waiter);
    if (!tls.ok()) return tls.error();
    connection->tls_ = std::move(tls.value());
  }
  if (const Status greeted = connection->Greet(options, deadline); !greeted.ok()) {
    Error error = greeted.error();
    if (error.hint.empty() && !is_unix) error.hint = GreetingHint(error.code, options.tls);
    return error;
  }
  return connection;
}

Status Connection::Greet(const ConnectionOptions& options, const Deadline& deadline) {
  if (!options.username.empty()) {
    Append({"AUTH", options.username, options.password});
  } else if (!options.password.empty()) {
    Append({"AUTH", options.password});
  }
  if (options.database != 0) Append({"SELECT", std::to_string(options.database)});
  Append({"CLIENT", "SETNAME", "pg_redis_migrate"});
  while (pending() > 0) {
    Result<Reply> reply = Receive(&deadline);
    if (!reply.ok()) return reply.error();
    if (!reply.value().IsError()) continue;
    // Managed services may forbid CLIENT. Other errors concern the connection: NOAUTH, DENIED, too many
    // clients ...
    Error error = ToError(reply.value());
    const bool is_forbidden = error.code == ErrorCode::kPermissionDenied ||
                              (error.code == ErrorCode::kServerError && StartsWith(error.detail, kError));
    if (last_name_ != "CLIENT" || !is_forbidden) return error;
  }
  return {};
}

Result<Reply> Connection::Command(std::initializer_list<Bytes> arguments, const ReplyLimit& limit) {
  if (pending() > 0 && !broken_) {
    return Break({ErrorCode::kProtocol, "a reply of Redis at " + address_ + " was not received", {}, {}});
  }
  Append(arguments, limit);
  Result<Reply> reply = Receive();
  if (reply.ok() && reply.value().IsError()) return ToError(reply.value());
  return reply;
}

void Connection::Append(const Bytes* arguments, size_t count, const ReplyLimit& limit) {
  names_.emplace_back(arguments[0]);
  if (broken_) return;
  turns_.Append();
  guard_.Expect(limit);
  AppendLength(output_, '*', count);
  for (size_t i = 0; i < count; ++i) {
    AppendLength(output_, '$', arguments[i].size());
    output_ += arguments[i];
    output_ += "\r\n";
  }
}

void Connection::EndTurn() {
  if (!broken_) turns_.End(output_gone_ + output_.size());
}

void Connection::Flush() {
  if (!broken_) WriteSome();
}

void Connection::Proceed(uint64_t most_held) {
  if (broken_ || (pending() == 0 && output_.empty()) || reader_.held() >= most_held) return;
  if (ReadSome().ok()) WriteSome();
}

Result<Reply> Connection::Receive() { return Receive(nullptr); }

Result<Reply> Connection::Receive(const Deadline* deadline) {
  if (broken_) return *broken_;
  if (pending() == 0) {
    return Break({ErrorCode::kProtocol, "Redis at " + address_ + " was asked nothing", {}, {}});
  }
  if (read_unwaited_ >= kBytesBetweenWaits) Wait(nullptr, 0, 0);
  std::optional<Reply> reply;
  PRM_RETURN_IF_ERROR(ReadReply(reply));
  std::optional<Deadline> progress;
  while (!reply) {
    if (read_unwaited_ >= kBytesBetweenWaits) Wait(nullptr, 0, 0);
    const bool wrote = WriteSome();
    Result<bool> read = ReadSome();
    if (!read.ok()) return read.error();
    if (read.value()) {
      WriteSome();  // so that Redis goes on while the replies are looked at
      PRM_RETURN_IF_ERROR(ReadReply(reply));
    } else if (!wrote) {
      if (!progress) progress.emplace(options_.command_timeout_ms);
      const Deadline& end = deadline != nullptr ? *deadline : *progress;
      if (!WaitForProgress(end))
        return TimedOut("did not answer command \"" + Printable(names_.front()) + "\"", end);
      continue;
    }
    progress.reset();
  }
  EndCommand();
  if (!reply->IsStatus() && !reply->IsError() && IsAnsweredByStatus(last_name_))
    return Break(UnknownReply(last_name_));
  return std::move(*reply);
}

void Connection::EndCommand() {
  last_name_ = std::move(names_.front());
  names_.pop_front();
}

std::optional<Reply> Connection::TakeArrived() {
  std::optional<Reply> reply;
  if (!HasArrived() || !ReadReply(reply).ok() || !reply) return {};
  EndCommand();
  return reply;
}

bool Connection::HasArrived() {
  const auto has_reply = [this] { return guard_.pending() < pending(); };
  if (broken_ || has_reply()) return true;
  WriteSome();
  return !ReadSome().ok() || has_reply();
}

// The next complete reply among the bytes read so far, if there is one.
Status Connection::ReadReply(std::optional<Reply>& reply) {
  if (broken_) return *broken_;
  OwnedReply next = reader_.Next();
  if (next) reply.emplace(std::move(next), guard_.TakeDropped());
  switch (reader_.problem()) {
    case ReplyReader::Problem::kNone:
      return {};
    case ReplyReader::Problem::kNoMemory:
      return Refuse({ErrorCode::kTooLarge, {}, "There is not enough memory for it.", {}});
    case ReplyReader::Problem::kInvalid:
      break;
  }
  return Refuse({ErrorCode::kProtocol, {}, gate_.Pass(reader_.words()) + ".", {}});
}

Status Connection::Feed(const char* bytes, size_t size) {
  const Status passed =
      guard_.Take(bytes, size, [this](const char* part, size_t part_size) { reader_.Feed(part, part_size); });
  return passed.ok() ? Status() : Status(Refuse(passed.error()));
}

// The number of bytes read: 0 if there are none now.
Result<size_t> Connection::ReadBytes(char* to, size_t size) {
  const IoResult result = Read(to, size);
  switch (result.state) {
    case IoState::kMoved:
      read_unwaited_ += result.bytes;
      return result.bytes;
    case IoState::kBlocked:
      read_waits_for_ = result.events;
      return size_t{0};
    case IoState::kClosed:
      return Lost("The server closed the connection.");
    case IoState::kFailed:
      break;
  }
  return Lost(result.reason);
}

// True if bytes were read, false if there are none now.
Result<bool> Connection::ReadSome() {
  char buffer[kReadBytes];
  const Result<size_t> read = ReadBytes(buffer, sizeof(buffer));
  if (!read.ok()) return read.error();
  PRM_RETURN_IF_ERROR(Feed(buffer, read.value()));
  return read.value() > 0;
}

Result<size_t> Connection::ReadRaw(char* to, size_t size, std::optional<long> wait_ms) {
  if (broken_) return *broken_;
  if (pending() > 0 || !reader_.is_empty()) {
    return Break({ErrorCode::kProtocol, "a reply of Redis at " + address_ + " was not received", {}, {}});
  }
  if (!raw_silence_) raw_silence_.emplace(options_.command_timeout_ms);
  const Deadline wait(wait_ms.value_or(0));
  while (true) {
    if (read_unwaited_ >= kBytesBetweenWaits) Wait(nullptr, 0, 0);
    const bool wrote = WriteSome();
    const Result<size_t> read = ReadBytes(to, size);
    if (read.ok() && read.value() > 0) raw_silence_.reset();
    if (!read.ok() || read.value() > 0) return read;
    const bool may_give_up = wait_ms && wait.RemainingMs() < raw_silence_->RemainingMs();
    if (wrote || WaitForProgress(may_give_up ? wait : *raw_silence_)) continue;
    if (raw_silence_->RemainingMs() == 0) return TimedOut("sent nothing", *raw_silence_);
    return size_t{0};
  }
}

Result<std::optional<Reply>> Connection::ReceiveMessage(long wait_ms) {
  if (pending() > 0 && !broken_) {
    return Break({ErrorCode::kProtocol, "a reply of Redis at " + address_ + " was not received", {}, {}});
  }
  if (!raw_silence_) raw_silence_.emplace(options_.command_timeout_ms);
  const Deadline wait(wait_ms);
  while (true) {
    std::optional<Reply> message;
    PRM_RETURN_IF_ERROR(ReadReply(message));
    if (message) return message;
    if (read_unwaited_ >= kBytesBetweenWaits) Wait(nullptr, 0, 0);
    const bool wrote = WriteSome();
    const Result<bool> read = ReadSome();
    if (!read.ok()) return read.error();
    if (read.value()) raw_silence_.emplace(options_.command_timeout_ms);
    const bool may_give_up = wait.RemainingMs() < raw_silence_->RemainingMs();
    if (read.value() || wrote || WaitForProgress(may_give_up ? wait : *raw_silence_)) continue;
    if (raw_silence_->RemainingMs() == 0) return TimedOut("sent nothing", *raw_silence_);
    return std::optional<Reply>();
  }
}

// True if bytes were sent. ReadSome reports a failure: the server's last words, such as "max number of
// clients reached", explain more than a broken pipe.
bool Connection::WriteSome() {
  const size_t end = MaySend();
  if (output_failed_ || output_sent_ >= end) return false;
  const IoResult result = Write(output_.data() + output_sent_, end - output_sent_);
  output_failed_ = result.state == IoState::kFailed || result.state == IoState::kClosed;
  if (result.state == IoState::kBlocked) write_waits_for_ = result.events;
  output_sent_ += result.bytes;
  if (output_sent_ >= output_.size() - output_sent_) {  // less is left to be moved than was sent
    output_gone_ += output_sent_;
    output_.erase(0, output_sent_);
    output_sent_ = 0;
    if (output_.empty() && output_.capacity() > kKeptBufferBytes) output_.shrink_to_fit();
  }
  return result.bytes > 0;
}

// How much of output_ may be sent by now.
size_t Connection::MaySend() {
  const uint64_t all = output_gone_ + output_.size();
  return static_cast<size_t>(std::max(turns_.MaySend(guard_.pending(), all), output_gone_) - output_gone_);
}

// False after the deadline.
bool Connection::WaitForProgress(const Deadline& deadline) {
  const long remaining_ms = deadline.RemainingMs();
  if (remaining_ms == 0) return false;
  const bool want_write = !output_failed_ && output_sent_ < MaySend();
  WaitSocket socket{socket_.fd(), read_waits_for_ | (want_write ? write_waits_for_ : 0), 0};
  Wait(&socket, 1, remaining_ms);
  return true;
}

// lacking: what the server failed to do until the deadline, as the predicate of a sentence.
Error Connection::TimedOut(const std::string& lacking, const Deadline& deadline) {
  return Break(
      {ErrorCode::kTimeout,
       "Redis at " + address_ + " " + lacking + " within " + std::to_string(deadline.limit_ms()) + " ms",
       {},
       {}});
}

// If the waiter throws, the caller no longer knows which replies are pending.
void Connection::Wait(WaitSocket* sockets, size_t count, long timeout_ms) {
  broken_ =
      Error{ErrorCode::kConnectionFailure, "connection to Redis at " + address_ + " was abandoned", {}, {}};
  waiter_.Wait(sockets, count, timeout_ms);
  broken_.reset();
  read_unwaited_ = 0;
}

Error Connection::Break(Error error) {
  broken_ = std::move(error);
  return *broken_;
}

// Breaks the connection because of an invalid or oversized reply.
Error Connection::Refuse(Error error) {
  if (error.code == ErrorCode::kTooLarge && names_.empty()) {
    error.message = "Redis at " + address_ + " sent a message that is larger than the limit";
  } else if (error.code == ErrorCode::kTooLarge) {
    // The replies before it may not have been received yet.
    const size_t at = names_.size() - std::clamp<size_t>(guard_.pending(), 1, names_.size());
    error.message = "Redis at " + address_ + " answered command \"" + Printable(names_[at]) +
                    "\" with more than the limit";
  } else {
    error.message = "the server at " + address_ + " does not speak the Redis protocol";
  }
  return Break(std::move(error));
}

Error Connection::Lost(const std::string& reason) {
  return Break(
      {ErrorCode::kConnectionFailure, "connection to Redis at " + address_ + " was lost", reason, {}});
}

Error Connection::ToError(Bytes text, Bytes command) const {
  const Bytes words = WithoutArguments(text);
  const ErrorCode code = CodeOf(words, command);
  std::string message = code == ErrorCode::kAuthFailure
                            ? "authentication with Redis at " + address_ + " failed"
                            : "Redis at " + address_ + " refused command \"" + Printable(command) + "\"";
  // Not masked: the slot of "MOVED 3999 127.0.0.1:6381" must be parsed even if the password has the same
  // digits.
  const size_t slot = code == ErrorCode::kMoved ? words.find(' ') + 1 : 0;
  const size_t slot_end = slot > 0 ? std::min(words.find_first_not_of("0123456789", slot), words.size()) : 0;
  const Bytes kept = slot_end - slot > 5 ? Bytes() : words.substr(0, slot_end);
  std::string detail(kept);
  detail += gate_.Pass(words.substr(kept.size()), kMostShown,
                       {kError, kUnknown, kWithoutMulti, kNoKeyArguments, kNoCluster, kOnKey, kToAccess});
  return {code, std::move(message), std::move(detail), {}};
}

Error Connection::UnknownReply(Bytes command) const {
  return {ErrorCode::kProtocol,
          "Redis at " + address_ + " answered " + std::string(command) + " in an unknown form",
          {},
          {}};
}

}  // namespace prm::redis
