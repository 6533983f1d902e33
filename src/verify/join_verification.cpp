// CALL redis_migrate.join_verification(…): takes part in a verification that another process leads.
#include "parts/part_reading.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/spi.h"
#include "verify/source_comparison.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;

class VerificationMember {
 public:
  explicit VerificationMember(int64 id)
      : record_(VerificationRecord::Join(id, &parameters_, &is_followed_)),
        migration_(LoadMigration(parameters_.migration)),
        routing_(migration_, std::nullopt, parameters_.mapping),
        comparison_(migration_, routing_, parameters_, record_),
        reading_(record_.parts(), SourceComparison::kTakesOver) {
    comparison_.SetFollowed(is_followed_);
    Spi::Commit();
  }

  void Execute() {
    auto require_leader = [this] { RequireLeader(); };
    reading_.TakePart(
        [&](const PartTable::Part &part, const SourcePart &share) {
          comparison_.ComparePart(part, share, false, require_leader);
        },
        [this] { return HasLeader(); }, require_leader);
  }

 private:
  bool HasLeader() const { return !PartLock(record_.id(), PartLock::kVerification, 0).taken(); }

  void RequireLeader() const {
    if (!HasLeader())
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "no process leads verification " + std::to_string(record_.id()) + " of migration \"" +
                        migration_.name + "\"",
                    "",
                    "CALL redis_migrate.verify(" + pg::QuoteLiteral(migration_.name) + ") begins another.");
  }

  VerificationRecord::Parameters parameters_;
  bool is_followed_ = false;
  VerificationRecord record_;
  Migration migration_;
  Routing routing_;
  SourceComparison comparison_;
  PartReading reading_;
};

}  // namespace
}  // namespace prm

// redis_migrate.join_verification(verification_id bigint): see the SQL comment. Takes the locks of parts, one
// after the other. Errors: 2D000 in a transaction block, 42704, 42501 not the owner, 55000 when the
// verification is not in progress or nobody leads it, and those of redis_migrate.verify, which are noted for
// the leader.
PRM_FUNCTION(join_verification) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.join_verification commits after each batch");
  if (PG_ARGISNULL(0)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "verification_id must not be NULL");
  pg::Spi spi(true);
  VerificationMember(PG_GETARG_INT64(0)).Execute();
  PG_RETURN_VOID();
}
