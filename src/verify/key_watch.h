// Tells whether keys of a server have held still, by WATCH over a connection of its own: reading keys over
// the same one would end the watch.
#pragma once

#include "connect/server.h"
#include "core/key_id.h"

namespace prm {

class KeyWatch {
 public:
  // server: the name of a foreign server that is no cluster; it must outlive this.
  explicit KeyWatch(const std::string &server) : server_(server) {}

  // Watches these keys from now on, and no others, at the server process with this run_id. False: it lets no
  // keys be watched, cannot be reached, or another process answers; after three times in a row it is not
  // tried again. Commits.
  bool Begin(const std::vector<KeyId> &keys, const std::string &run_id);

  // Whether since Begin nobody has written to any of the keys, and none of them has expired. Ends the watch.
  // A connection that was lost does not tell: false.
  bool HeldStill();

 private:
  bool Open(const std::string &run_id);
  bool Watch(const std::vector<KeyId> &keys);

  const std::string &server_;
  std::unique_ptr<ServerConnection> connection_;
  std::optional<int> db_;  // that the connection has selected
  std::string run_id_;     // of the server process
  bool is_watching_ = false;
  int failures_ = 0;  // in a row
};

}  // namespace prm
