// The parts of a source that several processes read side by side.
#pragma once

#include <variant>

#include "connect/outage.h"
#include "connect/server.h"
#include "connect/server_file.h"
#include "redis/info.h"
#include "source/scan.h"

namespace prm {

// The place from which a reader reads.
struct SourcePlace {
  std::string kind;                           // as run's argument source: scan, rdb, replication, archive
  std::string migration;                      // for hints
  std::string server;                         // of scan and replication
  std::string file;                           // of rdb: absolute path on the database server
  std::optional<std::vector<int>> databases;  // nothing: all
  std::optional<int64> run_id;                // whose snapshot of the server it reads; nothing: a new one
  bool is_received = false;                   // of replication: another process has received the snapshot
  std::optional<source::ListedNames> listed;  // of scan: all names that the filter wants, if they are known
  std::function<void(const std::string &cursor)> end_page;  // of scan: see ScanOptions
  Outage outage;                                            // as which it waits for Redis
  // For an archive: opens it behind a position.
  std::function<std::unique_ptr<source::Source>(source::KeyFilter &, const std::string &)> open_archive;
};

// A part of a source, read beside its other parts.
struct SourcePart {
  std::variant<redis::Slots, source::CursorShare, source::NameShare> share;
  int readers = 1;  // so many processes share the ceiling of the server and the bytes in flight

  // The share as text: "slots 0-5460", "cursors 1 of 4", "names 1 of 2".
  std::string ToString() const;
  // The part that ToString wrote, with one reader. Errors: XX001 for any other text.
  static SourcePart Parse(const std::string &share);
};

// The options of a server for the reader of a part: all readers together keep to its ceiling.
redis::Deployment ShareOf(redis::Deployment deployment, const std::optional<SourcePart> &part);

// Returns the number of keys in the databases that are read, as the server reports it, and these databases in
// ascending order.
struct Keyspace {
  std::vector<int> databases;
  int64 keys = 0;
};
// wanted: nothing for all that have keys.
Keyspace KeyspaceOf(const redis::ServerInfo &info, const std::optional<std::vector<int>> &wanted);

// A source before it is read in parts: its size, and how it can be divided.
class SourceDivision {
 public:
  struct Part {
    std::string share;     // SourcePart::ToString
    std::string position;  // to begin at; empty: at the beginning
  };

  // Asks the source. count_keys: of a cluster, asks all masters how many keys they have. first: what cannot
  // be reached now is an error, rather than waited for. Errors: those of ServerOptions, ServerConnection,
  // ServerFile and source::ClusterWalk.
  SourceDivision(const SourcePlace &place, bool count_keys, bool first);

  bool is_cluster() const { return !masters_.empty(); }
  // Keys, as the source says; -1: it does not.
  int64 keys() const { return keys_; }
  // Whether it is a server on this machine, which needs a core itself.
  bool is_local() const { return is_local_; }
  // How many processes can read it without obstructing each other.
  int most_readers() const;
  // How many of them its size is worth.
  int worthwhile_readers() const;

  // Parts for so many processes: one for each, or as many as the source has by itself. Fewer than two: it is
  // not worth dividing.
  std::vector<Part> Into(int readers) const;

  // Whether a part of an earlier division is still one of this source, with the same keys.
  bool StillHas(const Part &part) const;

  // How many keys Redis has evicted since the source was asked; nothing if it does not say, or is a cluster.
  // Waits for Redis.
  std::optional<int64> EvictedSince() const;

 private:
  void AskServer(const SourcePlace &place, bool count_keys);

  std::string kind_;
  std::string server_;
  std::vector<redis::Slots> masters_;  // of a cluster
  std::string run_id_;                 // of a single server
  bool is_local_ = false;
  bool by_cursor_ = false;  // it can be read in shares of its cursors, each key in one of them
  std::optional<int64> evicted_;
  int64 keys_ = -1;
  int first_database_ = 0;
  std::string begin_;  // of a file
  uint64_t bytes_ = 0;
};

}  // namespace prm
