// Migrations and mappings as they are defined, read from the extension's tables.
#pragma once

#include "core/pattern.h"
#include "pg/pg.h"
#include "pg/relation_trust.h"

namespace prm {

enum class Priority { kCritical, kHigh, kMedium, kLow };
constexpr const char *kPriorityNames[] = {"critical", "high", "medium", "low"};

struct Check {
  std::string name;
  std::string condition;
};

struct Mapping {
  int64 id = 0;
  std::string migration;
  std::string name;
  std::string pattern;
  std::string target;                            // schema-qualified and quoted
  std::optional<pg::AcceptedRelation> accepted;  // the target; nothing for the archive, a table of ours
  std::string query;
  std::vector<std::string> key_columns;
  std::string priority;
  std::string on_conflict;               // update, nothing, fill, or a SET list
  std::string on_delete;                 // delete, keep, or a SET list
  std::optional<std::string> on_expire;  // the same; nothing: as on_delete
  std::string on_flush;                  // pause, delete
  std::string mode;                      // upsert, update
  std::string no_row;                    // reject, skip
  std::string atomic;                    // key, element
  std::optional<std::string> expand;     // elements, groups, pending
  std::optional<std::vector<std::string>> types;
  std::optional<std::vector<int>> databases;
  std::vector<std::string> depends_on;
  bool exclusive = false;
  bool journal = true;  // the migration's
  std::string ledger;   // none, packed, full
  std::string ledger_reason;
  std::string search_path;
  std::string timezone;
  std::string datestyle;
  std::string intervalstyle;
  std::vector<Check> checks;

  // Whether rows stay as they are, however their keys and elements go.
  bool KeepsGone() const { return on_delete == "keep" && on_expire.value_or("keep") == "keep"; }
};

// The numbers of databases; nothing: all.
using DatabaseNumbers = std::optional<std::vector<int>>;

inline bool Takes(const DatabaseNumbers &databases, int db) {
  return !databases || std::find(databases->begin(), databases->end(), db) != databases->end();
}

struct Migration {
  std::string name;
  std::string server;    // empty: none
  std::string file;      // absolute path on the database server; empty: none
  std::string source;    // scan, rdb, archive
  std::string unmapped;  // archive, reject
  std::optional<std::vector<int>> databases;
  bool journal = true;  // runs and live sync keep the earlier images of rows
  std::vector<Mapping> mappings;
  std::vector<std::string> skip_patterns;
};

// The purpose for which a migration is read. Its owner may do everything with it; a superuser may drop it.
enum class MigrationUse { kAny, kDrop };

// Reads a migration whole. Errors: 42704 no such migration, 42501 for others than its owner.
// Needs an SPI connection; runs one transaction's worth of catalog reads, takes ACCESS SHARE locks only.
Migration LoadMigration(const std::string &name, MigrationUse use = MigrationUse::kAny);

// Stores the roles that a mapping's owner trusts with code of their own.
void StoreTrusted(const Mapping &mapping);

// Error 22023 if there is no such source.
void CheckSource(const std::string &source);
// Whether a source is read from the migration's server.
bool ReadsServer(const std::string &source);

// Error 22023 if the migration lacks what reading from `source` needs: a server for scan and replication, a
// file for rdb.
void RequireSource(const Migration &migration, const std::string &source);

// The position of a priority's name in kPriorityNames; error 22023 names the valid ones.
int PriorityRank(const std::string &name);

// Parses a pattern of a definition. Keys are compared with it in UTF-8; its text() stays in the server's
// encoding. Errors: 22023 for an invalid pattern, 22P05.
KeyPattern ParsePattern(const std::string &text);

}  // namespace prm
