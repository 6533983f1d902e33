#include "redis/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "core/printable.h"
#include "core/small_file.h"

namespace prm::redis {

namespace {

Error FileError(const char* option, const std::string& file, const std::string& reason,
                const std::string& hint = {}) {
  return {ErrorCode::kInvalidArgument, std::string("could not use ") + option + " \"" + file + "\"",
          reason + ".", hint};
}

// Why the last call of OpenSSL failed: the first reason is nearest to the cause. Empties the queue, which
// PostgreSQL's own connection may share.
std::string TakeReason() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown reason";
  if (ERR_SYSTEM_ERROR(code)) return std::strerror(ERR_GET_REASON(code));
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : "error " + std::to_string(code) + " of OpenSSL";
}

bool IsAddress(const std::string& host) {
  in6_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) == 1 || inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// A nonempty file named by an option.
Result<SmallFile> ReadFile(const char* option, const std::string& path) {
  Result<SmallFile> file = ReadSmallFile(path);
  if (file.ok() && !file.value().bytes.empty()) return file;
  Error error = FileError(option, path, "It is empty");
  if (!file.ok()) error.detail = file.error().detail;
  return error;
}

// Anybody who can read the key could impersonate us. The rule is that of libpq.
Status CheckKeyFile(const std::string& file, const struct stat& info) {
  const mode_t forbidden = info.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
  if ((info.st_uid != 0 && info.st_uid != geteuid()) || (info.st_mode & forbidden) != 0) {
    return FileError(
        "tls_key", file, "Others may read or write it",
        "It must belong to the server's operating-system user with mode 0600, or to root with 0640.");
  }
  return {};
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

Bio MemoryBio(const std::string& bytes) {
  Bio bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())), BIO_free);
  if (!bio) throw std::bad_alloc();
  return bio;
}

// OpenSSL reports the end of a PEM file as an error. Whether this is that error; empties the queue if so.
bool IsEndOfPem() {
  const unsigned long code = ERR_peek_last_error();
  if (ERR_GET_LIB(code) != ERR_LIB_PEM || ERR_GET_REASON(code) != PEM_R_NO_START_LINE) return false;
  ERR_clear_error();
  return true;
}

// Loads certificates and revocation lists, like SSL_CTX_load_verify_locations from a file.
bool LoadAuthorities(SSL_CTX* context, const std::string& pem) {
  const Bio bio = MemoryBio(pem);
  const auto free_all = [](STACK_OF(X509_INFO) * list) { sk_X509_INFO_pop_free(list, X509_INFO_free); };
  const std::unique_ptr<STACK_OF(X509_INFO), decltype(free_all)> list(
      PEM_X509_INFO_read_bio(bio.get(), nullptr, nullptr, nullptr), free_all);
  if (!list) return false;
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  bool any = false;
  for (int i = 0; i < sk_X509_INFO_num(list.get()); ++i) {
    const X509_INFO* info = sk_X509_INFO_value(list.get(), i);
    if (info->x509 != nullptr && X509_STORE_add_cert(store, info->x509) != 1) return false;
    if (info->crl != nullptr && X509_STORE_add_crl(store, info->crl) != 1) return false;
    any = any || info->x509 != nullptr;
  }
  if (!any) ERR_raise(ERR_LIB_PEM, PEM_R_NO_START_LINE);
  return any;
}

// Loads the client's certificate and its chain.
bool LoadCertificates(SSL_CTX* context, const std::string& pem) {
  const Bio bio = MemoryBio(pem);
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
  const Certificate own(PEM_read_bio_X509_AUX(bio.get(), nullptr, nullptr, nullptr), X509_free);
  if (!own || SSL_CTX_use_certificate(context, own.get()) != 1) return false;
  for (;;) {
    const Certificate next(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
    if (!next) return IsEndOfPem();
    if (SSL_CTX_add1_chain_cert(context, next.get()) != 1) return false;
  }
}

bool LoadKey(SSL_CTX* context, const std::string& pem, pem_password_cb* passphrase) {
  const Bio bio = MemoryBio(pem);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, passphrase, nullptr), EVP_PKEY_free);
  return key && SSL_CTX_use_PrivateKey(context, key.get()) == 1 && SSL_CTX_check_private_key(context) == 1;
}

// The names of a certificate may be longer than other text of a peer.
constexpr size_t kMostNameBytes = 1000;

std::string Contents(BIO* bio, const TextGate& gate) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  return gate.Pass({text, static_cast<size_t>(std::max(size, 0L))}, kMostNameBytes);
}

// Subject and alternative names: 'subject "CN=redis", names "DNS:a.example, IP Address:10.0.0.5"'.
std::string Describe(X509* certificate, const TextGate& gate) {
  const std::unique_ptr<BIO, int (*)(BIO*)> subject(BIO_new(BIO_s_mem()), BIO_free);
  const std::unique_ptr<BIO, int (*)(BIO*)> names(BIO_new(BIO_s_mem()), BIO_free);
  if (!subject || !names) throw std::bad_alloc();
  X509_NAME_print_ex(subject.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  std::string text = "subject \"" + Contents(subject.get(), gate) + "\"";
  const int at = X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1);
  if (at >= 0 && X509V3_EXT_print(names.get(), X509_get_ext(certificate, at), 0, 0) == 1) {
    text += ", names \"" + Contents(names.get(), gate) + "\"";
  }
  return text;
}

std::string VerificationHint(int error) {
  switch (error) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return "If it is the server you mean, set its option tls_server_name to a name of the certificate.";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "Set option ca_file of the server to the certificates of the authority that signed it.";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "Renew the certificate of the Redis server.";
    default:
      return {};
  }
}

}  // namespace

Result<std::unique_ptr<TlsSession>> TlsSession::Open(Socket& socket, const TlsOptions& options,
                                                     const std::string& host, const std::string& address,
                                                     const TextGate& gate, const Deadline& deadline,
                                                     Waiter& waiter) {
  std::unique_ptr<TlsSession> session(new TlsSession(socket, gate));
  PRM_RETURN_IF_ERROR(session->Prepare(options, host));
  PRM_RETURN_IF_ERROR(session->Connect(address, deadline, waiter));
  return session;
}

Status TlsSession::Prepare(const TlsOptions& options, const std::string& host) {
  ERR_clear_error();
  context_.reset(SSL_CTX_new(TLS_client_method()));
  if (!context_) throw std::bad_alloc();
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  // Needed because the output buffer may move between two attempts to send it.
  SSL_CTX_set_mode(context_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_default_passwd_cb(context_.get(), NoPassphrase);  // do not prompt at the terminal
  PRM_RETURN_IF_ERROR(LoadFiles(options));
  if (options.mode != TlsMode::kRequire) {
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, NoteVerification);
  }

  // A BIO of our own: OpenSSL's uses write(2), which may raise SIGPIPE.
  session_.reset(SSL_new(context_.get()));
  method_.reset(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "redis socket"));
  if (!session_ || !method_) throw std::bad_alloc();
  BIO_meth_set_read(method_.get(), ReadSocket);
  BIO_meth_set_write(method_.get(), WriteSocket);
  BIO_meth_set_ctrl(method_.get(), Control);
  BIO* bio = BIO_new(method_.get());
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(session_.get(), bio, bio);
  SSL_set_app_data(session_.get(), this);

  expected_name_ = options.server_name.empty() ? host : options.server_name;
  const bool is_address = IsAddress(expected_name_);
  bool accepted = is_address || SSL_set_tlsext_host_name(session_.get(), expected_name_.c_str()) == 1;
  if (accepted && options.mode == TlsMode::kVerifyFull) {
    SSL_set_hostflags(session_.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    accepted = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session_.get()),
                                                          expected_name_.c_str()) == 1
                          : SSL_set1_host(session_.get(), expected_name_.c_str()) == 1;
  }
  if (!accepted) {
    return Error{ErrorCode::kInvalidArgument,
                 "\"" + Printable(expected_name_) + "\" cannot be the name of a TLS server",
                 TakeReason() + ".",
                 {}};
  }
  return {};
}

Status TlsSession::LoadFiles(const TlsOptions& options) {
  if (options.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(context_.get());
  } else {
    const Result<SmallFile> file = ReadFile("ca_file", options.ca_file);
    if (!file.ok()) return file.error();
    if (!LoadAuthorities(context_.get(), file.value().bytes)) {
      return FileError("ca_file", options.ca_file, TakeReason());
    }
  }
  if (options.certificate_file.empty()) return {};
  const Result<SmallFile> certificate = ReadFile("tls_cert", options.certificate_file);
  if (!certificate.ok()) return certificate.error();
  if (!LoadCertificates(context_.get(), certificate.value().bytes)) {
    return FileError("tls_cert", options.certificate_file, TakeReason());
  }
  const Result<SmallFile> key = ReadFile("tls_key", options.key_file);
  if (!key.ok()) return key.error();
  PRM_RETURN_IF_ERROR(CheckKeyFile(options.key_file, key.value().info));
  if (!LoadKey(context_.get(), key.value().bytes, NoPassphrase)) {
    return FileError("tls_key", options.key_file, TakeReason());
  }
  return {};
}

Status TlsSession::Connect(const std::string& address, const Deadline& deadline, Waiter& waiter) {
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(session_.get());
    if (result == 1) return {};
    const IoResult outcome = Outcome(result);
    if (outcome.state != IoState::kBlocked) return HandshakeError(address, outcome);
    const long remaining_ms = deadline.RemainingMs();
    if (remaining_ms == 0) {
      return Error{ErrorCode::kTimeout,
                   "Redis at " + address + " did not complete the TLS handshake within " +
                       std::to_string(deadline.limit_ms()) + " ms",
                   {},
                   "If the port does not expect TLS, set the server's option port to the one that does, or "
                   "tls 'off'."};
    }
    WaitSocket socket{socket_.fd(), outcome.events, 0};
    waiter.Wait(&socket, 1, remaining_ms);
  }
}

Error TlsSession::HandshakeError(const std::string& address, const IoResult& result) const {
  Error error{
      ErrorCode::kConnectionFailure, "could not establish TLS with Redis at " + address, result.reason, {}};
  if (result.state == IoState::kClosed) error.detail = "The server closed the connection.";
  if (verify_error_ != X509_V_OK) {
    error.detail =
        "The server's certificate was refused: " + std::string(X509_verify_cert_error_string(verify_error_)) +
        ". It has " + refused_ + ".";
    if (verify_error_ == X509_V_ERR_HOSTNAME_MISMATCH || verify_error_ == X509_V_ERR_IP_ADDRESS_MISMATCH) {
      error.detail += " It should be issued for \"" + Printable(expected_name_) + "\".";
    }
    error.hint = VerificationHint(verify_error_);
  } else {
    error.hint =
        "If the port does not expect TLS, set the server's option port to the one that does, or tls 'off'.";
  }
  return error;
}

IoResult TlsSession::Read(char* buffer, size_t size) {
  ERR_clear_error();
  size_t count = 0;
  const int result = SSL_read_ex(session_.get(), buffer, size, &count);
  return result == 1 ? IoResult{IoState::kMoved, count} : Outcome(result);
}

IoResult TlsSession::Write(const char* bytes, size_t size) {
  ERR_clear_error();
  size_t count = 0;
  const int result = SSL_write_ex(session_.get(), bytes, size, &count);
  return result == 1 ? IoResult{IoState::kMoved, count} : Outcome(result);
}

IoResult TlsSession::Outcome(int result) {
  switch (SSL_get_error(session_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return {IoState::kBlocked, 0, kWaitRead};
    case SSL_ERROR_WANT_WRITE:
      return {IoState::kBlocked, 0, kWaitWrite};
    case SSL_ERROR_ZERO_RETURN:
      return {IoState::kClosed};
    default:
      break;
  }
  // The socket knows best why it failed.
  const std::string reason = TakeReason();
  return {IoState::kFailed, 0, 0, socket_failure_.empty() ? "TLS: " + reason + "." : socket_failure_};
}

std::string TlsSession::Description() const {
  return std::string(SSL_get_version(session_.get())) + " with " + SSL_get_cipher_name(session_.get());
}

int TlsSession::ReadSocket(BIO* bio, char* buffer, int size) {
  auto* self = static_cast<TlsSession*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  IoResult result = self->socket_.Read(buffer, static_cast<size_t>(size));
  if (result.state == IoState::kMoved) return static_cast<int>(result.bytes);
  if (result.state == IoState::kBlocked) BIO_set_retry_read(bio);
  if (result.state == IoState::kFailed) self->socket_failure_ = std::move(result.reason);
  if (result.state == IoState::kClosed) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return result.state == IoState::kClosed ? 0 : -1;
}

int TlsSession::WriteSocket(BIO* bio, const char* bytes, int size) {
  auto* self = static_cast<TlsSession*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  IoResult result = self->socket_.Write(bytes, static_cast<size_t>(size));
  if (result.state == IoState::kMoved) return static_cast<int>(result.bytes);
  if (result.state == IoState::kBlocked) BIO_set_retry_write(bio);
  if (result.state == IoState::kFailed) self->socket_failure_ = std::move(result.reason);
  return -1;
}

long TlsSession::Control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:  // tells a closed connection from one that would block
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    default:
      return 0;
  }
}

// Keeps the description of the first certificate that fails verification. Must not throw through OpenSSL.
int TlsSession::NoteVerification(int accepted, X509_STORE_CTX* store) {
  const auto* session =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* self = static_cast<TlsSession*>(SSL_get_app_data(session));
  if (accepted == 1) return 1;
  self->verify_error_ = X509_STORE_CTX_get_error(store);
  try {
    X509* certificate = X509_STORE_CTX_get_current_cert(store);
    self->refused_ = certificate != nullptr ? Describe(certificate, self->gate_) : "no subject";
  } catch (const std::exception&) {
    self->refused_.clear();
  }
  return 0;
}

}  // namespace prm::redis
