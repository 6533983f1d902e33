// The commands that write a value to a key that does not exist, for servers that do not take the value as a
// whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"
#include "rdb/value.h"

namespace prm::sink {

// Takes commands in their order.
class CommandSink {
 public:
  virtual ~CommandSink() = default;
  // The arguments are valid only during the call.
  virtual void OnCommand(const std::vector<Bytes>& arguments) = 0;
};

// The commands that the server knows.
struct CommandAbilities {
  bool has_field_expiries = false;   // HPEXPIREAT: Redis 7.4, Valkey 9.0
  bool has_stream_counters = false;  // XSETID with ENTRIESADDED, XGROUP CREATE with ENTRIESREAD: Redis 7.0
};

// SET, RPUSH, SADD, HSET, ZADD, XADD and so on, with so many elements at once that a command neither occupies
// the server for long nor takes much memory. Needs Redis 5.0. What the commands cannot say is lost: when a
// consumer was last seen, and pending entries whose stream entries are deleted or which belong to no consumer
// (as after a rewrite of Redis' append-only file, src/aof.c, rewriteStreamObject).
class ElementCommands : public rdb::ValueVisitor {
 public:
  // All references must outlive the object.
  ElementCommands(Bytes key, const CommandAbilities& abilities, CommandSink& sink, Interrupts& interrupts)
      : key_(key), abilities_(abilities), sink_(sink), interrupts_(interrupts) {}

  void CheckInterrupts() override { interrupts_.CheckInterrupts(); }
  void OnString(Bytes value) override;
  void OnListElement(Bytes value) override;
  void OnSetMember(Bytes member) override;
  void OnHashField(Bytes field, Bytes value) override;
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override;
  void OnZsetMember(Bytes member, double score) override;
  void OnArrayElement(uint64_t index, Bytes value) override;
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields& fields) override;
  void OnStreamInfo(const rdb::StreamInfo& info) override;
  void OnStreamGroup(const rdb::StreamGroup& group) override;
  void OnStreamConsumer(const rdb::StreamConsumer& consumer) override;
  void OnStreamPending(const rdb::StreamPending& pending) override;
  void OnModuleValue(Bytes type_name) override;

  // Ends the value. Errors: kUnsupported, when the commands cannot write it; some may have gone to the sink.
  Status Finish();

  // How many pending entries are lost because they belong to no consumer.
  uint64_t lost() const { return lost_; }

 private:
  struct FieldExpiry {
    std::string field;
    int64_t at_ms;
  };

  void Begin(const char* command, size_t bytes, size_t arguments);
  void Add(Bytes argument);
  void Pass();
  void Refuse(std::string message);

  Bytes key_;
  const CommandAbilities& abilities_;
  CommandSink& sink_;
  Interrupts& interrupts_;
  const char* command_ = nullptr;  // of the piece that is being collected
  std::string piece_;              // its arguments, one after the other
  std::vector<size_t> ends_;       // of each in it
  std::vector<FieldExpiry> expiries_;
  uint64_t entries_ = 0;
  uint64_t lost_ = 0;
  Status status_;
};

}  // namespace prm::sink
