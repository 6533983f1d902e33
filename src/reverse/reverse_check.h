// Compares what rows would write back with what Redis has.
#pragma once

#include "connect/server.h"
#include "reverse/reverse_mapping.h"

namespace prm {

class ReverseCheck {
 public:
  // Checks these mappings.
  ReverseCheck(const std::string &server, std::vector<ReverseMapping> reverses);

  // Chooses so many rows at most of each mapping, from anywhere in its target. Commits. Errors: those of the
  // target.
  void Choose(int keys);

  // How many keys they have, without those of which Compare has seen that their rows do not tell what they
  // are.
  int64 chosen() const { return chosen_; }

  // Compares the keys that were chosen, and again, after a pause, those that differ: they may be changing.
  // The next call looks only at those that still do. The first connects to the server, or to the masters of a
  // cluster, with the credentials of the current user. Commits. Returns how many do. Errors: 54000, with the
  // key, for a value beyond max_value_size; those of reverse queries, ServerConnection, redis::FindTopology
  // and of the server.
  int64 Compare(int looks);

  // How many of the keys that the last call has found Redis has had as they are in so many looks in a row.
  int64 certain(int looks) const;

  struct Differing {
    std::string mapping;
    int64 keys;
    std::string shown;  // some of them, with letters and digits masked
  };
  // The keys that the last call has found.
  std::vector<Differing> differing() const;

  // Warns of mappings, of those that Compare has read, whose rows have fields that expire, if the server
  // takes no such expiries. Errors: those of Connection::Command.
  void WarnOfFieldExpiries();

 private:
  using Names = std::set<RowName>;
  struct Difference {
    size_t hash = 0;  // of what Redis had
    int looks = 0;    // in a row that have found that; 0: not looked at yet
  };
  using Differences = std::map<RowName, Difference>;
  static Names SampleNames(const ReverseMapping &reverse, int keys);
  Differences FindDiffering(const ReverseMapping &reverse, const Differences &before);
  struct Server {
    std::unique_ptr<ServerConnection> connection;
    bool has_pexpiretime = false;
    int64 clock_ahead_ms = 0;
    int db = 0;  // that is selected
  };
  void Connect();
  // Where a key is.
  Server &ServerOf(const std::string &key);
  std::optional<sink::WholeValue> Read(const ReverseMapping &reverse, const RowName &name, int64 until_ms);

  const std::string server_;
  std::optional<redis::ClusterTopology> topology_;
  std::vector<Server> servers_;  // of each shard
  int64 now_ms_ = 0;             // by the clock of the server, when it was last asked for a key
  std::vector<ReverseMapping> reverses_;
  std::vector<Differences> differences_;  // of each
  int64 chosen_ = 0;                      // keys
  std::set<std::string> expiring_;        // mappings with rows whose fields expire
};

}  // namespace prm
