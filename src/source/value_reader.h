// Reads values in pieces, each with its state at one moment.
//
// The key is watched with WATCH; MULTI and EXEC after the last piece fail if it was written to, or has
// expired, since. Where these commands are forbidden a value is read twice: two equal readings with equal
// expiries are the value between them, unless it was changed and changed back, which cannot be noticed. A key
// that changes is read again; one that keeps changing is kChanging.
#pragma once

#include <vector>

#include "redis/connection.h"
#include "source/entry.h"
#include "source/key_reply.h"
#include "source/piece_reader.h"

namespace prm::source {

class ValueReader {
 public:
  // The connection must outlive the reader. make_spool: where the payloads of large collections go; none:
  // they are held in memory.
  ValueReader(redis::Connection& connection, const ServerAbilities& server, uint64_t piece_bytes,
              uint64_t max_value_bytes, MakeSpool make_spool = {});

  struct Wanted {
    Entry* entry;
    uint64_t memory;  // the reply of MEMORY USAGE; 0: unknown
  };

  // Reads the values of all entries, which must be in the selected database; nothing may be pending. Each
  // becomes kRead with its expiry, kVanished, kTooLarge, kChanging or kUnsupported. An entry with a payload
  // keeps it if its type has no commands for its parts. Several entries take no more round trips than one.
  // Errors: those of Connection; after a refused command (IsMissingCommand) nothing is pending, and the
  // connection can be used.
  Status Read(const std::vector<Wanted>& wanted);

 private:
  struct Reading;

  Status Probe(Bytes key);
  Status ReadUntilUnchanged(const Wanted& wanted);
  Status ReadTwice(const Wanted& wanted);
  static void GiveUp(Entry& entry);
  Result<bool> ReadOnce(const std::vector<Wanted>& wanted);
  Result<bool> Unwatch();
  Error Abandon(const Error& error);
  Result<bool> ReadPieces(const std::vector<Wanted>& wanted);
  Status Begin(Reading& reading);
  Result<bool> Drain();
  Result<bool> End(std::vector<Reading>& readings);

  redis::Connection& connection_;
  ExpiryReader expiries_;
  PieceLimits limits_;
  bool probed_ = false;
  bool has_watch_ = false;
};

}  // namespace prm::source
