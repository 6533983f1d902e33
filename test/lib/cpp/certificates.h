// Certificates for one test, made by the openssl command in a temporary directory: files NAME.crt and
// NAME.key.
#pragma once

#include <string>

namespace prm::test {

class Certificates {
 public:
  // Makes the authority "ca". Throws std::runtime_error when openssl fails.
  Certificates();

  // Removes the directory.
  ~Certificates();

  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  // Another authority.
  void MakeAuthority(const std::string& name);

  // A certificate of `authority`, subject CN=name, for the names ("DNS:localhost,IP:127.0.0.1"), valid for so
  // many days from now; a negative number makes one that has expired.
  void Make(const std::string& name, const std::string& names, const std::string& authority = "ca",
            int days = 2);

  std::string certificate(const std::string& name) const { return directory_ + "/" + name + ".crt"; }
  std::string key(const std::string& name) const { return directory_ + "/" + name + ".key"; }

 private:
  void OpenSsl(const std::string& arguments) const;

  std::string directory_;
};

}  // namespace prm::test
