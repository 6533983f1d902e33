#include "source/living_fields.h"

#include "rdb/dump.h"
#include "rdb/encoder.h"
#include "rdb/version.h"

namespace prm::source {

namespace {

class LivingFields : public rdb::ValueVisitor {
 public:
  LivingFields(int64_t now_ms, Interrupts& interrupts)
      : encoder(rdb::ValueType::kHash), now_ms_(now_ms), interrupts_(interrupts) {}

  void OnHashField(Bytes field, Bytes value) override {
    ++living;
    if (encodes) encoder.AddHashField(field, value);
  }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    if (expires_at_ms <= now_ms_) {
      ++expired;
      return;
    }
    ++living;
    if (encodes) encoder.AddExpiringHashField(field, value, expires_at_ms);
  }
  void CheckInterrupts() override { interrupts_.CheckInterrupts(); }

  bool encodes = false;
  uint64_t living = 0;
  uint64_t expired = 0;
  rdb::CollectionEncoder encoder;

 private:
  int64_t now_ms_;
  Interrupts& interrupts_;
};

}  // namespace

Result<bool> DropExpiredFields(std::string& payload, int64_t now_ms, Interrupts& interrupts) {
  if (!rdb::MayHaveExpiringFields(payload)) return true;
  LivingFields count(now_ms, interrupts);
  PRM_RETURN_IF_ERROR(rdb::DecodeDump(payload, count));
  if (count.expired == 0) return true;
  if (count.living == 0) return false;
  LivingFields take(now_ms, interrupts);
  take.encodes = true;
  PRM_RETURN_IF_ERROR(rdb::DecodeDump(payload, take));
  payload = take.encoder.Finish(rdb::IsValkey(rdb::DumpVersion(payload).value_or(0)));
  return true;
}

}  // namespace prm::source
