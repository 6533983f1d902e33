#include "pg/session_settings.h"

#include "pg/guard.h"
#include "pg/spi.h"

extern "C" {
#include "utils/guc_tables.h"
}

namespace prm::pg {
namespace {

// A setting that sessions can have of their own.
struct Setting {
  std::string name;
  std::string value;
  GucContext context;
  GucSource source;
  bool is_placeholder;   // no library has defined it: nothing tells its value but who has set it
  bool is_about_rows;    // not about logging and statistics alone
  bool is_set() const {  // by what differs from session to session
    return source > PGC_S_ARGV && source != PGC_S_OVERRIDE;
  }
};

// What a process has of its own: its roles, its transaction, its client.
bool IsOfConnection(const char *name) {
  for (const char *own : {"role", "session_authorization", "transaction_isolation", "transaction_read_only",
                          "transaction_deferrable", "seed", "client_encoding"})
    if (strcmp(name, own) == 0) return true;
  return false;
}

bool IsAboutRows(config_group group) {
  switch (group) {
    case LOGGING_WHERE:
    case LOGGING_WHEN:
    case LOGGING_WHAT:
    case PROCESS_TITLE:
    case STATS_MONITORING:
    case STATS_CUMULATIVE:
      return false;
    default:
      return true;
  }
}

// As the server compares names of settings.
std::string Lower(std::string name) {
  for (char &c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return name;
}

// By name in small letters.
std::map<std::string, Setting> AllSettings() {
  int count = 0;
  config_generic **const variables = Call([&] { return get_guc_variables(&count); });
  std::map<std::string, Setting> all;
  for (int i = 0; i < count; ++i) {
    const config_generic &variable = *variables[i];
    if ((variable.context != PGC_USERSET && variable.context != PGC_SUSET) || IsOfConnection(variable.name))
      continue;
    const char *const value = Call([&] { return GetConfigOption(variable.name, true, false); });
    all.emplace(Lower(variable.name),
                Setting{variable.name, value == nullptr ? "" : value, variable.context, variable.source,
                        (variable.flags & GUC_CUSTOM_PLACEHOLDER) != 0, IsAboutRows(variable.group)});
  }
  return all;
}

bool MaySet(const Setting &setting) {
  return setting.context == PGC_USERSET || Call([&] {
           return superuser() ||
                  pg_parameter_aclcheck(setting.name.c_str(), GetUserId(), ACL_SET) == ACLCHECK_OK;
         });
}

// Whether another session of the current user has it by itself: by the settings of databases, or of its role.
bool ComesByItself(GucSource source) {
  return source == PGC_S_GLOBAL || source == PGC_S_DATABASE ||
         ((source == PGC_S_USER || source == PGC_S_DATABASE_USER) && GetSessionUserId() == GetUserId());
}

// Errors: 55000, without the message of the server, which may have the value.
void Adopt(const std::string &name, const std::string &value, GucContext context) {
  try {
    Call([&] {
      (void)set_config_option(name.c_str(), value.c_str(), context, PGC_S_SESSION, GUC_ACTION_SET, true, 0,
                              false);
    });
  } catch (const PgError &error) {
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "setting \"" + name + "\" cannot have the value of the session that leads (" +
                      SqlStateText(error.sqlstate()) + ")");
  }
}

}  // namespace

std::string SessionSettings() {
  std::string text;
  for (const auto &[key, setting] : AllSettings()) {
    if (!MaySet(setting)) continue;
    // Of a library that another process may not have loaded, it need not be known there.
    text += setting.is_placeholder || setting.is_set() ? '+' : ' ';
    text.append(setting.name).append(1, '\0').append(setting.value).append(1, '\0');
  }
  return text;
}

std::optional<std::string> ReasonNotToAdoptSettings() {
  std::map<std::string, Setting> const here = AllSettings();
  for (const auto &[key, setting] : here)
    if (setting.is_set() && setting.is_about_rows && !ComesByItself(setting.source) && !MaySet(setting))
      return setting.name + " was changed in this session, and another process may not do that";
  auto const elsewhere = Spi::Execute(
      R"sql(SELECT pg_catalog.split_part(s.setting, '=', 1), r.setrole OPERATOR(pg_catalog.<>) 0
            FROM pg_catalog.pg_db_role_setting AS r, pg_catalog.unnest(r.setconfig) AS s (setting)
            WHERE r.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0, CURRENT_USER::pg_catalog.regrole::pg_catalog.oid])
                AND r.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (
                    SELECT d.oid FROM pg_catalog.pg_database AS d
                    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())])
            ORDER BY 1)sql");
  for (uint64 i = 0; i < elsewhere.size(); ++i) {
    std::string const name = elsewhere[i].Text(0);
    auto const known = here.find(Lower(name));
    // Only custom ones can be unknown.
    if (name.find('.') != std::string::npos && known == here.end())
      return name + " is set for the role or the database, and not in this session";
    // The settings of a role come by login, not by SET ROLE.
    if (elsewhere[i].Bool(1) && known != here.end() && known->second.is_about_rows &&
        !MaySet(known->second) && !(GetSessionUserId() == GetUserId() && known->second.is_set()))
      return name + " is set for the role, and not in this session";
  }
  return std::nullopt;
}

void AdoptSettings(const std::string &settings) {
  std::map<std::string, Setting> const mine = AllSettings();
  GucContext const context = Call([] { return superuser() ? PGC_SUSET : PGC_USERSET; });
  std::set<std::string> met;
  for (size_t at = 0; at < settings.size();) {
    bool const must_exist = settings[at] == '+';
    std::string const name = settings.c_str() + at + 1;
    std::string const value = settings.c_str() + at + 1 + name.size() + 1;
    at += name.size() + value.size() + 3;
    auto const found = mine.find(Lower(name));
    met.insert(Lower(name));
    if (found == mine.end() ? must_exist : found->second.value != value) Adopt(name, value, context);
  }
  for (const auto &[key, setting] : mine)
    if (setting.is_placeholder && met.count(key) == 0)
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "setting \"" + setting.name + "\" is unknown to the session that leads");
}

}  // namespace prm::pg
