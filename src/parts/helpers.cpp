#include "parts/helpers.h"

#include "parts/worker_count.h"
#include "pg/arguments.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

std::unique_ptr<Helpers> (*new_helpers)(const Work &) = nullptr;

std::string Work::ToString() const {
  return (kind == Kind::kRun ? "run " : "verification ") + std::to_string(id);
}

int Helpers::StartUpTo(int count, bool is_asked_for, const std::vector<const Mapping *> &mappings) {
  if (count < 1) return 0;
  std::optional<std::string> reason = ReasonToRunAlone(mappings);
  if (!reason) reason = Problem();
  Spi::Commit();
  if (reason) {
    if (!std::exchange(told_alone_, true))
      pg::Report(NOTICE, work_.ToString() + " is read by one process: " + *reason,
                 "Other processes connect as the owner of the migration, with a session of their own.");
    return 0;
  }
  int const started = Start(count, is_asked_for || MyBgworkerEntry != nullptr ? WARNING : NOTICE);
  Spi::Commit();
  return started;
}

}  // namespace prm
