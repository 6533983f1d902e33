// The first byte is a type, the rest any bytes as a value of it, as Redis and as Valkey number the types.
// Whatever can be decoded is also turned into commands.
#include <cstddef>
#include <cstdint>

#include "fuzz/layout.h"
#include "rdb/version.h"
#include "sink/element_commands.h"

namespace {

// Every command names the key, and what a server would take as too much does not come.
class TouchingSink : public prm::sink::CommandSink {
 public:
  void OnCommand(const std::vector<prm::Bytes>& arguments) override {
    bool names_key = false;
    for (const prm::Bytes argument : arguments) {
      prm::fuzz::Touch(argument);
      names_key = names_key || argument == "key";
    }
    if (!names_key || arguments.size() < 3) __builtin_trap();
  }
};

void WriteByCommands(prm::rdb::Layout layout, prm::Bytes input, bool is_new) {
  const prm::sink::CommandAbilities abilities = {is_new, is_new};
  TouchingSink sink;
  prm::Interrupts interrupts;
  prm::sink::ElementCommands commands("key", abilities, sink, interrupts);
  prm::rdb::ByteReader reader(input);
  const prm::Status decoded = prm::rdb::DecodeObject(layout, reader, commands);
  const prm::Status finished = commands.Finish();
  (void)decoded;
  (void)finished;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const prm::Bytes input(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (const unsigned version : {prm::rdb::kNewestVersion, prm::rdb::kNewestValkeyVersion}) {
    const auto type = prm::rdb::FindObjectType(data[0], version);
    if (!type.ok()) continue;
    prm::fuzz::ReadEveryWay(type.value().layout, input);
    WriteByCommands(type.value().layout, input, version == prm::rdb::kNewestVersion);
  }
  return 0;
}
