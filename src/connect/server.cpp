#include "connect/server.h"

#include "connect/server_file.h"

#include <charconv>

#include "core/small_file.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/memory.h"
#include "pg/settings.h"

namespace prm {
namespace {

constexpr char kWrapper[] = "redis_migrate";
constexpr long kMostKeysPerSecond = 100000000;
constexpr int kRedisPort = 6379;
constexpr int kSentinelPort = 26379;

enum class OptionKind {
  kText,
  kPort,
  kSeconds,
  kFile,
  kTls,
  kRate,
  kEndpoints,
  kSwitch,
  kReadFrom,
  kNetworks
};

struct OptionRule {
  const char *name;
  Oid catalog;  // the kind of object that may have it
  OptionKind kind;
};

constexpr OptionRule kRules[] = {
    {"host", ForeignServerRelationId, OptionKind::kText},
    {"port", ForeignServerRelationId, OptionKind::kPort},
    {"tls", ForeignServerRelationId, OptionKind::kTls},
    {"ca_file", ForeignServerRelationId, OptionKind::kFile},
    {"tls_server_name", ForeignServerRelationId, OptionKind::kText},
    {"cluster", ForeignServerRelationId, OptionKind::kSwitch},
    {"sentinel_master", ForeignServerRelationId, OptionKind::kText},
    {"sentinels", ForeignServerRelationId, OptionKind::kEndpoints},
    {"redirects_to", ForeignServerRelationId, OptionKind::kNetworks},
    {"read_from", ForeignServerRelationId, OptionKind::kReadFrom},
    {"stale_replica", ForeignServerRelationId, OptionKind::kSwitch},
    {"max_rate", ForeignServerRelationId, OptionKind::kRate},
    {"connect_timeout", ForeignServerRelationId, OptionKind::kSeconds},
    {"command_timeout", ForeignServerRelationId, OptionKind::kSeconds},
    {"username", UserMappingRelationId, OptionKind::kText},
    {"password", UserMappingRelationId, OptionKind::kText},
    {"password_file", UserMappingRelationId, OptionKind::kFile},
    {"sentinel_username", UserMappingRelationId, OptionKind::kText},
    {"sentinel_password", UserMappingRelationId, OptionKind::kText},
    {"tls_cert", UserMappingRelationId, OptionKind::kFile},
    {"tls_key", UserMappingRelationId, OptionKind::kFile},
};

const char *CatalogName(Oid catalog) {
  switch (catalog) {
    case ForeignServerRelationId:
      return "server";
    case UserMappingRelationId:
      return "user mapping";
    case ForeignDataWrapperRelationId:
      return "foreign-data wrapper";
    default:
      return "foreign table";
  }
}

std::string ValidOptions(Oid catalog) {
  std::string names;
  for (const OptionRule &rule : kRules)
    if (rule.catalog == catalog) names += (names.empty() ? "" : ", ") + std::string(rule.name);
  return names.empty() ? "There are no valid options here." : "Valid options here are: " + names + ".";
}

// A whole number from `least` to `most`, or nothing.
std::optional<long> WholeNumber(const std::string &text, long least, long most) {
  long number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most)
    return std::nullopt;
  return number;
}

std::optional<redis::TlsMode> ParseTlsMode(const std::string &text) {
  if (text == "off") return redis::TlsMode::kOff;
  if (text == "require") return redis::TlsMode::kRequire;
  if (text == "verify-ca") return redis::TlsMode::kVerifyCa;
  if (text == "verify-full" || text == "on") return redis::TlsMode::kVerifyFull;
  return std::nullopt;
}

void CheckOption(const std::string &name, const std::string &value, Oid catalog) {
  const OptionRule *rule = nullptr;
  for (const OptionRule &candidate : kRules)
    if (candidate.catalog == catalog && name == candidate.name) rule = &candidate;
  if (rule == nullptr)
    throw pg::Failure(ERRCODE_FDW_INVALID_OPTION_NAME,
                      "option \"" + name + "\" is not valid for a redis_migrate " + CatalogName(catalog), "",
                      ValidOptions(catalog));
  if (name == "host" && value.empty())
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "host must not be empty");
  if (rule->kind == OptionKind::kPort && !WholeNumber(value, 1, 65535))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      "port \"" + value + "\" is not a number from 1 to 65535");
  if (rule->kind == OptionKind::kSeconds && !WholeNumber(value, 1, 86400))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      name + " \"" + value + "\" is not a whole number of seconds from 1 to 86400");
  if (rule->kind == OptionKind::kEndpoints) pg::ValueOrThrow(redis::ParseEndpoints(value, kSentinelPort));
  if (rule->kind == OptionKind::kNetworks) pg::ValueOrThrow(redis::AddressRule::Parse(value));
  if (rule->kind == OptionKind::kSwitch && value != "on" && value != "off")
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, name + " \"" + value + "\" is not on or off");
  if (rule->kind == OptionKind::kReadFrom && value != "master" && value != "replica")
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, name + " \"" + value + "\" is not master or replica");
  if (rule->kind == OptionKind::kRate && !WholeNumber(value, 1, kMostKeysPerSecond))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      name + " \"" + value + "\" is not a whole number of keys " + "per second from 1 to " +
                          std::to_string(kMostKeysPerSecond));
  if (rule->kind == OptionKind::kTls && !ParseTlsMode(value))
    throw pg::Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "tls \"" + value + "\" is not valid", "",
        "Valid values are off, require, verify-ca, verify-full, and on, which means verify-full.");
  const bool is_unix_socket = name == "host" && value.front() == '/';
  if ((rule->kind == OptionKind::kFile || is_unix_socket) && !MayReadServerFiles(GetUserId()))
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to set option \"" + name + "\"",
                      "The option names a file on the server.",
                      "Only roles with the privileges of pg_read_server_files may set it.");
}

using Options = std::map<std::string, std::string>;

Options ReadOptions(List *definitions) {
  Options options;
  for (int i = 0; i < list_length(definitions); ++i) {
    auto *element = static_cast<DefElem *>(list_nth(definitions, i));
    options[element->defname] = pg::Call([&] { return const_cast<const char *>(defGetString(element)); });
  }
  return options;
}

std::string Lookup(const Options &options, const char *name) {
  auto found = options.find(name);
  return found == options.end() ? std::string() : found->second;
}

// As Redis has it. Errors: 22P05.
std::string Utf8Option(const Options &options, const char *name) {
  return pg::Utf8FromText(Lookup(options, name), "option \"" + std::string(name) + "\"");
}

// Checks all options of an object against each other.
void CheckTogether(const Options &options, Oid catalog) {
  const auto refuse = [](const std::string &message, const std::string &hint) {
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, message, "", hint);
  };
  if (catalog == UserMappingRelationId && options.count("tls_cert") != options.count("tls_key"))
    refuse("tls_cert and tls_key must be set together", "Both may name the same file.");
  if (catalog != ForeignServerRelationId) return;
  const redis::TlsMode tls = options.count("tls") ? *ParseTlsMode(options.at("tls")) : redis::TlsMode::kOff;
  // Options without effect would suggest a protection that is not there.
  if (options.count("ca_file") && (tls == redis::TlsMode::kOff || tls == redis::TlsMode::kRequire))
    refuse("ca_file needs tls 'verify-ca' or 'verify-full'", "Add tls 'on', or drop ca_file.");
  if (options.count("tls_server_name") && tls == redis::TlsMode::kOff)
    refuse("tls_server_name needs tls", "Add tls 'on', or drop tls_server_name.");
  const bool is_cluster = options.count("cluster") && options.at("cluster") == "on";
  if (is_cluster && options.count("sentinels"))
    refuse("cluster and sentinels cannot be set together", "Drop cluster, or sentinels and sentinel_master.");
  if (is_cluster && options.count("host"))
    pg::ValueOrThrow(redis::ParseEndpoints(options.at("host"), kRedisPort));
  if (!is_cluster && options.count("host") && options.at("host").find(',') != std::string::npos)
    refuse("host names several servers", "Only a cluster has several: add cluster 'on'.");
  if (options.count("redirects_to") && !is_cluster && !options.count("sentinels"))
    refuse("redirects_to needs a cluster or Sentinels", "Add one of them, or drop redirects_to.");
  if (options.count("sentinels") != options.count("sentinel_master"))
    refuse(
        "sentinels and sentinel_master must be set together",
        "sentinels: 'host:port, host:port'; sentinel_master: the name of the master in their configuration.");
  if (options.count("sentinels") && (options.count("host") || options.count("port")))
    refuse("host and port cannot be set together with sentinels", "Drop host and port, or sentinels.");
  if (tls != redis::TlsMode::kOff && options.count("host") && options.at("host").front() == '/')
    refuse("a unix socket cannot use tls", "Drop tls, or set host and port.");
}

// Checks the user of the option as well as the one who set it.
void CheckMayUseFile(const char *option, Oid user) {
  if (!MayReadServerFiles(user))
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                      std::string("permission denied to read the ") + option + " of the user mapping", "",
                      "Only roles with the privileges of pg_read_server_files may use it.");
}

// The first line of a file on the server.
std::string ReadPasswordFile(const std::string &path, Oid user) {
  CheckMayUseFile("password_file", user);
  const auto refuse = [&](const std::string &detail) {
    return pg::Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "could not use password_file \"" + path + "\"", detail,
        "Its first line is the password. It must be a regular file that the operating system's user "
        "of PostgreSQL can read.");
  };
  auto file = ReadSmallFile(path);
  if (!file.ok()) throw refuse(file.error().detail);
  std::string password = std::move(file.value().bytes);
  password.resize(std::min(password.find('\n'), password.size()));
  while (!password.empty() && password.back() == '\r') password.pop_back();
  if (password.empty()) throw refuse("Its first line is empty.");
  return password;
}

// The options of the user's mapping, of PUBLIC's, or none.
Options UserMappingOptions(Oid user, Oid server) {
  List *definitions = pg::Call([&] {
    HeapTuple tuple =
        SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user), ObjectIdGetDatum(server));
    if (!HeapTupleIsValid(tuple))
      tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server));
    if (!HeapTupleIsValid(tuple)) return static_cast<List *>(NIL);
    bool null;
    Datum options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &null);
    List *list = null ? NIL : untransformRelOptions(options);
    ReleaseSysCache(tuple);
    return list;
  });
  return ReadOptions(definitions);
}

}  // namespace

redis::Deployment ServerOptions(const std::string &server_name, Oid user) {
  ForeignServer *server = pg::Call([&] { return GetForeignServerByName(server_name.c_str(), true); });
  if (server == nullptr)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "server \"" + server_name + "\" does not exist", "",
                      "Create it with CREATE SERVER " + pg::QuoteIdentifier(server_name) +
                          " FOREIGN DATA WRAPPER redis_migrate OPTIONS (host '...', port '6379').");
  ForeignDataWrapper *wrapper = pg::Call([&] { return GetForeignDataWrapper(server->fdwid); });
  if (std::string(wrapper->fdwname) != kWrapper)
    throw pg::Failure(
        ERRCODE_WRONG_OBJECT_TYPE,
        "server \"" + server_name + "\" belongs to foreign-data wrapper \"" + wrapper->fdwname + "\"", "",
        "Use a server of foreign-data wrapper redis_migrate.");
  AclResult right =
      pg::Call([&] { return object_aclcheck(ForeignServerRelationId, server->serverid, user, ACL_USAGE); });
  if (right != ACLCHECK_OK)
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for foreign server " + server_name,
                      "",
                      "GRANT USAGE ON FOREIGN SERVER " + pg::QuoteIdentifier(server_name) + " TO the role.");

  Options where = ReadOptions(server->options);
  Options who = UserMappingOptions(user, server->serverid);
  redis::Deployment deployment;
  deployment.sentinel_master = Utf8Option(where, "sentinel_master");
  if (where.count("sentinels"))
    deployment.sentinels = pg::ValueOrThrow(redis::ParseEndpoints(where["sentinels"], kSentinelPort));
  deployment.sentinel_username = Utf8Option(who, "sentinel_username");
  deployment.sentinel_password = Utf8Option(who, "sentinel_password");
  if (where.count("read_from"))
    deployment.read_from =
        where["read_from"] == "replica" ? redis::ReadFrom::kReplica : redis::ReadFrom::kMaster;
  deployment.stale_replica = Lookup(where, "stale_replica") == "on";
  if (where.count("max_rate")) deployment.max_rate = *WholeNumber(where["max_rate"], 1, kMostKeysPerSecond);
  redis::ConnectionOptions &options = deployment.connection;
  options.host = where.count("host") ? where["host"] : "localhost";
  if (where.count("port")) options.port = static_cast<int>(*WholeNumber(where["port"], 1, 65535));
  if (Lookup(where, "cluster") == "on")
    deployment.seeds = pg::ValueOrThrow(redis::ParseEndpoints(options.host, options.port));
  if (options.host.front() == '/') options.unix_path = options.host;  // as libpq does
  if (where.count("tls")) options.tls.mode = *ParseTlsMode(where["tls"]);
  options.tls.ca_file = Lookup(where, "ca_file");
  if (where.count("redirects_to"))
    options.redirects = pg::ValueOrThrow(redis::AddressRule::Parse(where["redirects_to"]));
  options.tls.server_name = Lookup(where, "tls_server_name");
  options.connect_timeout_ms = where.count("connect_timeout")
                                   ? *WholeNumber(where["connect_timeout"], 1, 86400) * 1000
                                   : pg::settings::connect_timeout_ms;
  options.command_timeout_ms = where.count("command_timeout")
                                   ? *WholeNumber(where["command_timeout"], 1, 86400) * 1000
                                   : pg::settings::command_timeout_ms;
  options.username = Utf8Option(who, "username");
  options.password = Utf8Option(who, "password");
  if (who.count("password_file")) options.password = ReadPasswordFile(who["password_file"], user);
  options.other_secrets = {options.password, deployment.sentinel_password};
  if (who.count("tls_cert")) {
    CheckMayUseFile("tls_cert", user);
    options.tls.certificate_file = Lookup(who, "tls_cert");
    options.tls.key_file = Lookup(who, "tls_key");
  }
  return deployment;
}

ServerConnection::ServerConnection(const std::string &server, Oid user)
    : deployment_(ServerOptions(server, user)),
      connection_(pg::ValueOrThrow(redis::OpenServer(deployment_, waiter_))) {}

ServerConnection::ServerConnection(const std::string &server, Oid user, const std::vector<std::string> &nodes,
                                   long most_connect_ms)
    : deployment_(ServerOptions(server, user)) {
  long &connect_ms = deployment_.connection.connect_timeout_ms;
  connect_ms = std::min(connect_ms, most_connect_ms);
  if (deployment_.seeds.empty() || nodes.empty()) {
    connection_ = pg::ValueOrThrow(redis::OpenServer(deployment_, waiter_));
    return;
  }
  topology_ = pg::ValueOrThrow(redis::FindTopology(deployment_, waiter_));
  const redis::ClusterShard *const shard = topology_.ShardOfMaster(nodes);
  if (shard == nullptr) return;
  node_ = shard->master;
  connection_ = pg::ValueOrThrow(redis::OpenNode(deployment_, node_.endpoint, waiter_));
}

}  // namespace prm

// redis_migrate.fdw_validator(text[], oid): checks the options of servers and user mappings.
// Errors: HV00D unknown option (the hint lists the valid ones), 22023 bad value, 42501 file options, 0A000
// foreign tables.
PRM_FUNCTION(fdw_validator) {
  using namespace prm;
  Oid catalog = PG_GETARG_OID(1);
  List *definitions = pg::Call([&] { return untransformRelOptions(PG_GETARG_DATUM(0)); });
  if (catalog == ForeignTableRelationId)
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                      "foreign tables on a redis_migrate server are not supported", "",
                      "Use redis_migrate.add_mapping to move keys into an ordinary table.");
  const Options options = ReadOptions(definitions);
  for (const auto &[name, value] : options) CheckOption(name, value, catalog);
  CheckTogether(options, catalog);
  PG_RETURN_VOID();
}
