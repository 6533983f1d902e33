// TLS over a connected socket, by OpenSSL, without blocking.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "core/status.h"
#include "core/text_gate.h"
#include "redis/deadline.h"
#include "redis/socket.h"
#include "redis/waiter.h"

namespace prm::redis {

enum class TlsMode {
  kOff,
  kRequire,     // encrypted, without verifying the peer
  kVerifyCa,    // the certificate must come from a trusted authority
  kVerifyFull,  // and match the name that was connected to
};

struct TlsOptions {
  TlsMode mode = TlsMode::kOff;
  std::string ca_file;           // PEM, the trusted authorities; empty: those of the system
  std::string server_name;       // sent (SNI) and verified; empty: the host
  std::string certificate_file;  // PEM, of the client, with its chain; empty: none is sent
  std::string key_file;          // PEM, not encrypted
};

// The TLS side of one socket. TLS 1.2 and newer; everything else follows the system's OpenSSL configuration.
class TlsSession {
 public:
  // Does the handshake on a connected socket, which must outlive the session. `host`: what was connected to;
  // `address`: for messages, which show a certificate's names through `gate`; it must outlive the session.
  // Errors: kInvalidArgument (a file of the options), kTimeout, kConnectionFailure with OpenSSL's reason and,
  // for a certificate that was refused, its subject and names.
  static Result<std::unique_ptr<TlsSession>> Open(Socket& socket, const TlsOptions& options,
                                                  const std::string& host, const std::string& address,
                                                  const TextGate& gate, const Deadline& deadline,
                                                  Waiter& waiter);

  // As those of Socket. A connection that ends without being closed by the other side is kFailed.
  IoResult Read(char* buffer, size_t size);
  IoResult Write(const char* bytes, size_t size);

  // Version and cipher: "TLSv1.3 with TLS_AES_256_GCM_SHA384".
  std::string Description() const;

  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

 private:
  struct ContextDeleter {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  struct SessionDeleter {
    void operator()(SSL* session) const { SSL_free(session); }
  };
  struct MethodDeleter {
    void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
  };

  TlsSession(Socket& socket, const TextGate& gate) : socket_(socket), gate_(gate) {}

  Status Prepare(const TlsOptions& options, const std::string& host);
  Status LoadFiles(const TlsOptions& options);
  Status Connect(const std::string& address, const Deadline& deadline, Waiter& waiter);
  Error HandshakeError(const std::string& address, const IoResult& result) const;
  IoResult Outcome(int result);

  // Called by OpenSSL.
  static int ReadSocket(BIO* bio, char* buffer, int size);
  static int WriteSocket(BIO* bio, const char* bytes, int size);
  static long Control(BIO* bio, int command, long, void*);
  static int NoteVerification(int accepted, X509_STORE_CTX* store);
  static int NoPassphrase(char*, int, int, void*) { return 0; }

  Socket& socket_;
  const TextGate& gate_;
  std::string expected_name_;   // the name that the certificate must match
  int verify_error_ = 0;        // X509_V_…, of the certificate that was refused
  std::string refused_;         // and its subject and names
  std::string socket_failure_;  // why the socket failed, when it did
  std::unique_ptr<SSL_CTX, ContextDeleter> context_;
  std::unique_ptr<BIO_METHOD, MethodDeleter> method_;  // outlives the session that uses it
  std::unique_ptr<SSL, SessionDeleter> session_;
};

}  // namespace prm::redis
