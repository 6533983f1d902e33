#include "cutover/round_trip.h"

#include "cutover/unfinished.h"

namespace prm {
namespace {

constexpr int kRows = 100;  // of each mapping

}  // namespace

RoundTrip::RoundTrip(const Migration &migration, std::vector<std::string> patterns,
                     std::vector<ReverseMapping> reverses)
    : migration_(migration), patterns_(std::move(patterns)), check_(migration.server, std::move(reverses)) {}

void RoundTrip::Choose() { check_.Choose(kRows); }

void RoundTrip::Require(int looks, const std::function<void()> &between, const std::string &hint) {
  for (int look = 1; check_.Compare(1) > 0; ++look) {
    if (look == looks) break;
    between();
  }
  int64 const differing = check_.certain(looks);
  if (differing == 0) return;
  std::string detail;
  for (const ReverseCheck::Differing &of : check_.differing())
    detail += (detail.empty() ? "Mapping \"" : "\nMapping \"") + of.mapping +
              "\": " + std::to_string(of.keys) + " keys, with letters and digits masked: " + of.shown + ".";
  throw pg::Failure(
      ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
      "the rows of " + std::to_string(differing) + " of " + std::to_string(check_.chosen()) +
          " keys would write something else to Redis than it has",
      detail,
      "CALL redis_migrate.check_reverse(" + ArgumentsFor(migration_, patterns_) +
          ") looks at more of them; redis_migrate.set_reverse_query says how rows become keys; " + hint);
}

}  // namespace prm
