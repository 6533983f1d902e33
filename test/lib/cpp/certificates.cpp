#include "lib/cpp/certificates.h"

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <system_error>

namespace prm::test {

namespace {

constexpr char kNewKey[] = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

}  // namespace

Certificates::Certificates() : directory_("/tmp/prm-certificates-XXXXXX") {
  if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  MakeAuthority("ca");
}

Certificates::~Certificates() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void Certificates::MakeAuthority(const std::string& name) {
  OpenSsl("req -x509 " + std::string(kNewKey) + " -keyout " + key(name) + " -out " + certificate(name) +
          " -subj '/CN=Authority " + name + "' -days 2");
}

void Certificates::Make(const std::string& name, const std::string& names, const std::string& authority,
                        int days) {
  const std::string request = directory_ + "/" + name + ".csr";
  OpenSsl("req " + std::string(kNewKey) + " -keyout " + key(name) + " -out " + request +
          " -subj /CN=" + name + (names.empty() ? "" : " -addext subjectAltName=" + names));
  OpenSsl("x509 -req -in " + request + " -CA " + certificate(authority) + " -CAkey " + key(authority) +
          " -CAcreateserial -copy_extensions copyall -days " + std::to_string(days) + " -out " +
          certificate(name));
}

void Certificates::OpenSsl(const std::string& arguments) const {
  const std::string log = directory_ + "/log";
  const std::string command = "openssl " + arguments + " >" + log + " 2>&1";
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

}  // namespace prm::test
