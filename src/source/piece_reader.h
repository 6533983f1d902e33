// One value, read by commands each of whose replies is small.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/siphash.h"
#include "redis/connection.h"
#include "source/entry.h"

namespace prm::source {

// How far a server can tell the expiries of a hash's fields.
struct ServerAbilities {
  bool has_field_expiries = false;  // HPEXPIRETIME: Redis 7.4, Valkey 9.0
  bool has_time = false;            // the user may use TIME, if it has_field_expiries
  bool valkey = false;              // which form payloads take
};

struct PieceLimits {
  uint64_t piece_bytes;      // what a reply should have at most; a single element may have more
  uint64_t max_value_bytes;  // larger values are not read
  SipKey key;                // for telling elements apart
  ServerAbilities server;
};

class PieceReader {
 public:
  enum class State { kReading, kDone, kChanged, kTooLarge };

  // A reader for a value of the type that TYPE names; none for a type that has no commands for its parts.
  // memory: what MEMORY USAGE says, 0 for unknown. The entry must outlive the reader.
  static std::unique_ptr<PieceReader> ForType(Bytes type, Entry& entry, uint64_t memory,
                                              const PieceLimits& limits);
  virtual ~PieceReader() = default;

  // Appends the commands for the next piece. Only while kReading.
  void Ask(redis::Connection& connection);

  // Takes all replies to them. kChanged: they contradict each other, so the key was written to meanwhile.
  // Errors: those of Connection, with the key.
  Status Take(redis::Connection& connection);

  State state() const { return state_; }

  // Puts the value into the entry, as a string's bytes or as a DUMP payload. Only when kDone.
  virtual void Finish() = 0;

  // Bytes collected so far.
  virtual size_t size() const = 0;

  // Not 0: the length of an element that is larger than a value may be.
  uint64_t dropped() const { return dropped_; }

 protected:
  PieceReader(Entry& entry, const PieceLimits& limits) : entry_(entry), limits_(limits) {}

  virtual void AskPiece(redis::Connection& connection) = 0;
  virtual Status TakePiece(redis::Connection& connection) = 0;

  // Of commands that return elements: a small value, or one with large elements, comes in one piece.
  redis::ReplyLimit PieceLimit() const;

  // The next reply. The state becomes kChanged with an error reply that tells of a change, and kTooLarge with
  // an element that is; then the reply means nothing.
  Result<redis::Reply> Receive(redis::Connection& connection);
  void SetState(State state) { state_ = state; }

  Entry& entry_;
  PieceLimits limits_;

 private:
  State state_ = State::kReading;
  size_t asked_ = 0;
  uint64_t dropped_ = 0;
};

// How many elements to ask for, so that a reply has about the wanted size.
class PieceCount {
 public:
  PieceCount(uint64_t piece_bytes, uint64_t memory);
  uint64_t elements() const { return elements_; }
  void Note(uint64_t elements, uint64_t bytes);  // what a reply had

 private:
  uint64_t piece_bytes_;
  uint64_t elements_;
};

// The reader of streams, in stream_pieces.cpp.
std::unique_ptr<PieceReader> MakeStreamReader(Entry& entry, uint64_t memory, const PieceLimits& limits);

}  // namespace prm::source
