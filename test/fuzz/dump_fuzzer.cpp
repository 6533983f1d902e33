// Any bytes as a DUMP payload, and as a value with a good frame around it, which gets past the checksum.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/touch.h"
#include "rdb/dump.h"

namespace {

using prm::Bytes;
using prm::fuzz::Touch;

class TouchingVisitor : public prm::rdb::ValueVisitor {
 public:
  void OnString(Bytes value) override { Touch(value); }
  void OnListElement(Bytes element) override { Touch(element); }
  void OnSetMember(Bytes member) override { Touch(member); }
  void OnHashField(Bytes field, Bytes value) override {
    Touch(field);
    Touch(value);
  }
  void OnZsetMember(Bytes member, double /*score*/) override { Touch(member); }
  void OnStreamEntry(prm::rdb::StreamId, const prm::rdb::StreamFields& fields) override {
    for (const auto& [field, value] : fields) {
      Touch(field);
      Touch(value);
    }
  }
  void OnStreamGroup(const prm::rdb::StreamGroup& group) override { Touch(group.name); }
  void OnStreamConsumer(const prm::rdb::StreamConsumer& consumer) override {
    Touch(consumer.group);
    Touch(consumer.name);
  }
  void OnStreamPending(const prm::rdb::StreamPending& pending) override {
    Touch(pending.group);
    Touch(pending.consumer);
  }
};

void Decode(Bytes payload) {
  TouchingVisitor visitor;
  const bool known = prm::rdb::DumpType(payload).ok();
  const bool decoded = prm::rdb::DecodeDump(payload, visitor).ok();
  if (decoded && !known) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes input(reinterpret_cast<const char*>(data), size);
  Decode(input);
  using std::string_literals::operator""s;
  Decode(std::string(input) + "\x0a\0\0\0\0\0\0\0\0\0"s);  // RDB version 10, checksum not computed
  return 0;
}
