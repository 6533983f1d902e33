#include "parts/part_reading.h"

#include <algorithm>

#include "pg/arguments.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;

namespace {

constexpr long kLookAgainMs = 20;
constexpr long kLookForPartsMs = 5;

// Whether the leader has divided the source, and has said of what is left how many processes read it.
bool AreReady(const std::vector<PartTable::Part> &parts) {
  return !parts.empty() && std::all_of(parts.begin(), parts.end(), [](const PartTable::Part &part) {
    return part.done || part.readers > 0;
  });
}

}  // namespace

void PartReading::ReadFree(const ReadPart &read) {
  for (const PartTable::Part &seen : parts_.Read()) {
    if (seen.done || seen.sqlstate) continue;
    lock_.emplace(parts_.work().id, parts_.level(), seen.number);
    if (!lock_->taken()) continue;
    std::optional<PartTable::Part> const part = parts_.Take(seen.number);
    Spi::Commit();
    if (!part) continue;
    number_ = part->number;
    if (part->pid != 0)
      pg::Report(WARNING,
                 "process " + std::to_string(part->pid) + " ended before it had read part " +
                     std::to_string(part->number) + " of " + parts_.work().ToString(),
                 takes_over_);
    SourcePart source = SourcePart::Parse(part->share);
    source.readers = part->readers;
    read(*part, source);
    parts_.Finish(part->number);
    Spi::Commit();
    number_ = 0;
  }
  lock_.reset();
}

void PartReading::ReadAll(const ReadPart &read, const std::function<int()> &look) {
  for (int left = look(); left > 0;) {
    ReadFree(read);
    left = look();
    Spi::Commit();
    if (left > 0) pg::Sleep(kLookAgainMs);  // others read what is left
  }
}

void PartReading::TakePart(const ReadPart &read, const std::function<bool()> &has_leader,
                           const std::function<void()> &require_leader) {
  try {
    // The leader divides the source when it knows how many processes there are.
    for (require_leader(); !AreReady(parts_.Read()); require_leader()) {
      Spi::Commit();
      pg::Sleep(kLookForPartsMs);
    }
    ReadFree(read);
    Spi::Commit();
  } catch (...) {
    pg::Problem const problem = pg::CurrentProblem();
    pg::WithoutCancel const hold;
    pg::RollBackAfter(problem);
    if (!problem.cancelled() && number_ != 0 && has_leader()) {
      parts_.Fail(number_, problem.SqlState(), problem.message);
      Spi::Commit();
    }
    throw;
  }
}

int CountUndone(const std::vector<PartTable::Part> &parts) {
  int left = 0;
  for (const PartTable::Part &part : parts) {
    if (part.sqlstate)
      throw pg::Failure(pg::SqlStateCode(*part.sqlstate), part.message.value_or(""),
                        "Part " + std::to_string(part.number) + " was being read.");
    if (!part.done) ++left;
  }
  return left;
}

}  // namespace prm
