// Audits as stored in the extension's tables.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "discover/family.h"
#include "pg/pg.h"

namespace prm {

struct AuditParameters {
  std::string server;
  std::optional<double> sample;  // keys of each family that are asked about; below 1: that share of them
  std::optional<double> max_seconds;
  std::optional<std::vector<int>> databases;
  std::optional<int> max_rate;  // keys per second
};

struct AuditCounts {
  int64 keys = 0;                    // names, each once
  int64 asked = 0;                   // of which something was asked
  int64 vanished = 0;                // gone before it was asked
  std::map<std::string, int64> odd;  // by reason
};

struct LargeKey {
  uint64_t bytes = 0;
  std::string key;
  std::string type;
  std::optional<int64_t> ttl_ms;
};

class AuditRecord {
 public:
  // Begins an audit of the current user.
  explicit AuditRecord(const AuditParameters &parameters, Datum max_duration, bool has_max_duration);

  int64 id() const { return id_; }

  // Stores what the server reports about itself. shares_integers: one object serves all keys that hold the
  // same small number, so the idle time of such a key is not its own.
  void SetServer(const std::string &version, const std::string &policy, int64 dbsize, bool shares_integers);
  // Stores the progress.
  void Save(const AuditCounts &counts);
  // The families and largest keys of one database; several: there are others with keys.
  void AddFamilies(int db, bool several, const std::vector<Family> &families,
                   const std::vector<LargeKey> &largest);
  void AddNote(const std::string &note) { notes_.push_back(note); }
  // Ends the audit.
  void Finish(const std::string &state, const AuditCounts &counts, const std::optional<std::string> &sqlstate,
              const std::optional<std::string> &message);

  int64 families() const { return families_; }
  int64 bytes() const { return bytes_; }
  int64 without_expiry() const { return without_expiry_; }
  const std::vector<std::string> &notes() const { return notes_; }

 private:
  void AddFamily(int db, bool several, const Family &family);

  int64 id_ = 0;
  std::string server_;
  std::set<std::string> tables_;  // names that suggestions have taken
  bool shares_integers_ = true;
  int64 families_ = 0;
  int64 bytes_ = 0;
  int64 without_expiry_ = 0;
  std::vector<std::string> notes_;
};

}  // namespace prm
