// Reads one value by commands with small replies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/byte_spool.h"
#include "core/siphash.h"
#include "redis/connection.h"
#include "source/entry.h"
#include "source/server_abilities.h"

namespace prm::source {

struct PieceLimits {
  uint64_t piece_bytes;      // the wanted size of a reply; a single element may be larger
  uint64_t max_value_bytes;  // larger values are not read
  SipKey key;                // for the hashes of elements
  ServerAbilities server;
  MakeSpool make_spool = {};  // for large collections
};

class PieceReader {
 public:
  enum class State { kReading, kDone, kChanged, kTooLarge };

  // A reader for a value of the type that TYPE names; nullptr for a type without commands for its parts.
  // memory: the reply of MEMORY USAGE, 0 for unknown. The entry must outlive the reader.
  static std::unique_ptr<PieceReader> ForType(Bytes type, Entry& entry, uint64_t memory,
                                              const PieceLimits& limits);
  virtual ~PieceReader() = default;

  // Appends the commands for the next piece. Only while kReading.
  void Ask(redis::Connection& connection);

  // Receives all replies to them. kChanged: they contradict each other, so the key was written to meanwhile.
  // Errors: those of Connection, with the key.
  Status Take(redis::Connection& connection);

  State state() const { return state_; }

  // Puts the value into the entry, as a string's bytes or as a DUMP payload. Only when kDone. Errors: those
  // of the spool.
  virtual Status Finish() = 0;

  // Bytes collected so far.
  virtual size_t size() const = 0;

  // If not 0, the length of an element that exceeds the limit of a value.
  uint64_t dropped() const { return dropped_; }

 protected:
  PieceReader(Entry& entry, const PieceLimits& limits) : entry_(entry), limits_(limits) {}

  virtual void AskPiece(redis::Connection& connection) = 0;
  virtual Status TakePiece(redis::Connection& connection) = 0;

  // For commands that return elements: reads a small value, or one with large elements, in one piece.
  redis::ReplyLimit PieceLimit() const;

  // The next reply. The state becomes kChanged after an error reply that indicates a change, and kTooLarge
  // after an element that is too large; the reply is then meaningless.
  Result<redis::Reply> Receive(redis::Connection& connection);
  void SetState(State state) { state_ = state; }

  Entry& entry_;
  PieceLimits limits_;

 private:
  State state_ = State::kReading;
  size_t asked_ = 0;
  uint64_t dropped_ = 0;
};

// How many elements to ask for, for a reply of about the wanted size.
class PieceCount {
 public:
  PieceCount(uint64_t piece_bytes, uint64_t memory);
  uint64_t elements() const { return elements_; }
  void Note(uint64_t elements, uint64_t bytes);  // the size of the last reply

 private:
  uint64_t piece_bytes_;
  uint64_t elements_;
};

// The reader of streams, in stream_pieces.cpp.
std::unique_ptr<PieceReader> MakeStreamReader(Entry& entry, uint64_t memory, const PieceLimits& limits);

}  // namespace prm::source
