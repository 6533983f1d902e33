// Reads every byte that the decoder hands out, so that AddressSanitizer sees those that do not exist.
#pragma once

#include "core/bytes.h"
#include "rdb/value.h"

namespace prm::fuzz {

inline void Touch(Bytes bytes) {
  volatile char sink = 0;
  for (const char byte : bytes) sink = byte;
  (void)sink;
}

class TouchingVisitor : public rdb::ValueVisitor {
 public:
  void OnString(Bytes value) override { Touch(value); }
  void OnListElement(Bytes element) override { Touch(element); }
  void OnSetMember(Bytes member) override { Touch(member); }
  void OnHashField(Bytes field, Bytes value) override {
    Touch(field);
    Touch(value);
  }
  void OnZsetMember(Bytes member, double score) override {
    Touch(member);
    if (score != score) __builtin_trap();
  }
  void OnStreamEntry(rdb::StreamId, const rdb::StreamFields& fields) override {
    for (const auto& [field, value] : fields) {
      Touch(field);
      Touch(value);
    }
  }
  void OnStreamGroup(const rdb::StreamGroup& group) override { Touch(group.name); }
  void OnStreamConsumer(const rdb::StreamConsumer& consumer) override {
    Touch(consumer.group);
    Touch(consumer.name);
  }
  void OnStreamPending(const rdb::StreamPending& pending) override {
    Touch(pending.group);
    Touch(pending.consumer);
  }
  void OnModuleValue(Bytes type_name) override { Touch(type_name); }
};

}  // namespace prm::fuzz
