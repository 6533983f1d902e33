#include "source/living_fields.h"

#include "rdb/dump.h"
#include "rdb/encoder.h"
#include "rdb/version.h"

namespace prm::source {

namespace {

class LivingFields : public rdb::ValueVisitor {
 public:
  LivingFields(int64_t now_ms, Interrupts& interrupts, const MakeSpool& make_spool)
      : encoder(rdb::ValueType::kHash, make_spool), now_ms_(now_ms), interrupts_(interrupts) {}

  void OnHashField(Bytes field, Bytes value) override {
    ++living;
    if (encodes) encoder.AddHashField(field, value);
    Spill();
  }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    if (expires_at_ms <= now_ms_) {
      ++expired;
      return;
    }
    ++living;
    if (encodes) encoder.AddExpiringHashField(field, value, expires_at_ms);
    Spill();
  }
  void CheckInterrupts() override { interrupts_.CheckInterrupts(); }

  bool encodes = false;
  uint64_t living = 0;
  uint64_t expired = 0;
  rdb::CollectionEncoder encoder;
  Status status;  // the first error of the spool

 private:
  void Spill() {
    if (status.ok()) status = encoder.Spill();
  }

  int64_t now_ms_;
  Interrupts& interrupts_;
};

}  // namespace

Result<bool> DropExpiredFields(Entry& entry, int64_t now_ms, Interrupts& interrupts,
                               const MakeSpool& make_spool) {
  const bool may_expire = entry.large ? rdb::HasExpiringFields(entry.large->type().layout)
                                      : rdb::MayHaveExpiringFields(entry.payload);
  if (!may_expire) return true;
  LivingFields count(now_ms, interrupts, {});
  PRM_RETURN_IF_ERROR(Decode(entry, count));
  if (count.expired == 0) return true;
  if (count.living == 0) return false;
  LivingFields take(now_ms, interrupts, make_spool);
  take.encodes = true;
  PRM_RETURN_IF_ERROR(Decode(entry, take));
  PRM_RETURN_IF_ERROR(take.status);
  const unsigned version = entry.large ? entry.large->version() : rdb::DumpVersion(entry.payload).value_or(0);
  PRM_RETURN_IF_ERROR(take.encoder.Finish(rdb::IsValkey(version), entry.payload, entry.large));
  return true;
}

}  // namespace prm::source
