#include "restore/row_source.h"

#include <charconv>

#include "pg/arguments.h"
#include "pg/spi.h"
#include "rdb/encoder.h"
#include "reverse/ledger_names.h"
#include "reverse/row_faults.h"

namespace prm {
namespace {

// A mapping, and the parts of a name with the length of each.
std::string PositionOf(int64 mapping_id, const RowName &last) {
  std::string position = std::to_string(mapping_id);
  for (const std::string &part : last) position += " " + std::to_string(part.size()) + ":" + part;
  return position;
}

// Returns the mapping.
int64 ReadPosition(const std::string &position, RowName &last) {
  const char *at = position.data(), *const end = at + position.size();
  int64_t mapping_id = 0;
  at = std::from_chars(at, end, mapping_id).ptr;
  while (at < end) {
    size_t size = 0;
    at = std::from_chars(at + 1, end, size).ptr;
    if (at == end || static_cast<size_t>(end - at) <= size) break;
    last.emplace_back(at + 1, size);
    at += 1 + size;
  }
  return mapping_id;
}

std::string PayloadOf(const sink::WholeValue &value) {
  const std::vector<std::string> &elements = value.elements;
  if (value.type == "string") return rdb::EncodeStringDump(elements[0]);
  if (value.type == "list" || value.type == "set") {
    rdb::CollectionEncoder encoder(value.type == "list" ? rdb::ValueType::kList : rdb::ValueType::kSet);
    for (const std::string &element : elements)
      value.type == "list" ? encoder.AddListElement(element) : encoder.AddSetMember(element);
    return encoder.Finish();
  }
  if (value.type == "hash") {
    rdb::CollectionEncoder encoder(rdb::ValueType::kHash);
    for (size_t i = 0; i < elements.size(); i += 2) {
      auto const expiry = value.field_expiries.empty() ? std::nullopt : value.field_expiries[i / 2];
      if (expiry)
        encoder.AddExpiringHashField(elements[i], elements[i + 1], *expiry);
      else
        encoder.AddHashField(elements[i], elements[i + 1]);
    }
    return encoder.Finish();
  }
  std::vector<std::pair<double, Bytes>> members;
  for (size_t i = 0; i < elements.size(); i += 2)
    members.emplace_back(std::strtod(elements[i + 1].c_str(), nullptr), elements[i]);
  std::sort(members.rbegin(), members.rend());
  rdb::CollectionEncoder encoder(rdb::ValueType::kZset);
  for (const auto &[score, member] : members) encoder.AddZsetMember(member, score);
  return encoder.Finish();
}

}  // namespace

RowSource::RowSource(const Migration &migration, source::KeyFilter &filter, size_t batch_keys,
                     const std::string &position)
    : filter_(filter), batch_keys_(static_cast<int>(batch_keys)) {
  std::map<std::string, ReverseProblem> problems;
  reverses_ = FindReverses(migration, std::nullopt, problems);
  if (reverses_.empty())
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "migration \"" + migration.name + "\" has no mapping whose rows can become keys",
                      problems.empty() ? ""
                                       : "Mapping \"" + problems.begin()->first +
                                             "\": " + problems.begin()->second.problem + ".",
                      problems.empty() ? "" : problems.begin()->second.hint);
  for (const auto &[mapping, problem] : problems)
    pg::Report(WARNING, "rows of mapping \"" + mapping + "\" are left out: " + problem.problem, "",
               problem.hint);
  if (std::string const named = ListNamedByLedger(reverses_); !named.empty())
    pg::Report(WARNING, "rows of mappings " + named + " that did not come from Redis are left out",
               kWhyNameless);
  std::sort(reverses_.begin(), reverses_.end(),
            [](const ReverseMapping &a, const ReverseMapping &b) { return a.mapping.id < b.mapping.id; });
  if (position.empty()) return;
  int64 const mapping_id = ReadPosition(position, last_);
  while (next_ < reverses_.size() && reverses_[next_].mapping.id < mapping_id) ++next_;
  if (next_ < reverses_.size() && reverses_[next_].mapping.id != mapping_id) last_.clear();
}

Result<bool> RowSource::Next(source::Batch &batch) {
  batch = source::Batch();
  if (next_ == reverses_.size()) return false;
  const ReverseMapping &reverse = reverses_[next_];
  if (left_.empty()) {
    last_after_left_ = last_;
    pg::SnapshotScope const snapshot;
    for (RowName &name : ReadReverseNames(reverse, batch_keys_, last_after_left_))
      if (filter_.Classify(reverse.DbOf(name), reverse.KeyOf(name)).interest == source::Interest::kRead)
        left_.insert(std::move(name));
  }
  std::set<RowName> const names = std::exchange(left_, {});
  if (!names.empty()) Add(reverse, names, batch);
  if (left_.empty()) {
    last_ = last_after_left_;
    if (last_.empty()) ++next_;
  }
  batch.position = next_ == reverses_.size() ? std::to_string(PG_INT64_MAX)
                                             : PositionOf(reverses_[next_].mapping.id, last_);
  return true;
}

void RowSource::Add(const ReverseMapping &reverse, const std::set<RowName> &names, source::Batch &batch) {
  auto begin = [&](const RowName &name) {
    source::Entry entry;
    entry.db = reverse.DbOf(name);
    entry.key = reverse.KeyOf(name);
    return entry;
  };
  auto end = [&](source::Entry entry) {
    batch.bytes += entry.key.size() + entry.payload.size();
    batch.entries.push_back(std::move(entry));
  };
  try {
    ForRowsInOrder(
        names,
        [&](const std::set<RowName> &part) {
          int64 bytes = 0;
          for (auto &[name, value] : ReadReverseRows(reverse, part, bytes)) {
            if (!value) {
              left_.insert(name);
            } else if (!value->elements.empty()) {
              source::Entry entry = begin(name);
              entry.payload = PayloadOf(*value);
              entry.expires_at_ms = value->expires_at_ms;
              end(std::move(entry));
            }
          }
        },
        [&](const RowName &name, const pg::Problem &problem) {
          pg::Report(WARNING, "key " + reverse.MaskedKeyOf(name) + " of mapping \"" + reverse.mapping.name +
                                  "\" is left out: " + problem.message);
          source::Entry entry = begin(name);
          entry.state = source::EntryState::kTooLarge;
          end(std::move(entry));
        });
  } catch (const QueryFault &fault) {
    throw pg::Failure(fault.problem.sqlstate, fault.problem.message);
  }
}

}  // namespace prm
