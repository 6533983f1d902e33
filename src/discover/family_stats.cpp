#include "discover/family_stats.h"

#include <algorithm>
#include <utility>

namespace prm {

void Range::Add(int64_t value) {
  least = count == 0 ? value : std::min(least, value);
  greatest = count == 0 ? value : std::max(greatest, value);
  ++count;
}

void Range::Merge(const Range& other) {
  if (other.count == 0) return;
  least = count == 0 ? other.least : std::min(least, other.least);
  greatest = count == 0 ? other.greatest : std::max(greatest, other.greatest);
  count += other.count;
}

void FamilyStats::Add(Bytes key, const KeyFacts* facts) {
  ++keys;
  if (examples.size() < kMaxExamples) examples.emplace_back(key);
  if (facts == nullptr) return;
  ++asked;
  if (!facts->type.empty()) ++types[facts->type];
  if (facts->bytes) {
    ++sized;
    bytes += *facts->bytes;
  }
  if (facts->ttl_ms && *facts->ttl_ms == KeyFacts::kNoExpiry) {
    ++without_expiry;
  } else if (facts->ttl_ms) {
    ++with_expiry;
    ttl_ms.Add(*facts->ttl_ms);
    const auto limit = std::upper_bound(kTtlLimitsMs.begin(), kTtlLimitsMs.end(), *facts->ttl_ms);
    ++ttl_buckets[static_cast<size_t>(limit - kTtlLimitsMs.begin())];
  }
  if (facts->idle_s) idle_s.Add(*facts->idle_s);
  if (facts->frequency) frequency.Add(*facts->frequency);
  if (facts->kind) {
    ++values;
    ++kinds[static_cast<size_t>(*facts->kind)];
    if (facts->integer_digits > 0) integer_digits.Add(static_cast<int64_t>(facts->integer_digits));
  }
  if (!facts->field.empty() && fields.size() < kMaxFields &&
      std::find(fields.begin(), fields.end(), facts->field) == fields.end()) {
    fields.push_back(facts->field);
  }
}

void FamilyStats::Merge(const FamilyStats& other) {
  keys += other.keys;
  asked += other.asked;
  sized += other.sized;
  bytes += other.bytes;
  with_expiry += other.with_expiry;
  without_expiry += other.without_expiry;
  ttl_ms.Merge(other.ttl_ms);
  for (size_t i = 0; i < kTtlBuckets; ++i) ttl_buckets[i] += other.ttl_buckets[i];
  idle_s.Merge(other.idle_s);
  frequency.Merge(other.frequency);
  for (const auto& [type, count] : other.types) types[type] += count;
  for (size_t i = 0; i < kValueKinds; ++i) kinds[i] += other.kinds[i];
  values += other.values;
  integer_digits.Merge(other.integer_digits);
  for (const std::string& field : other.fields) {
    if (fields.size() < kMaxFields && std::find(fields.begin(), fields.end(), field) == fields.end()) {
      fields.push_back(field);
    }
  }
  for (const std::string& example : other.examples) {
    if (examples.size() < kMaxExamples) examples.push_back(example);
  }
}

std::string FamilyStats::Type() const {
  const auto most = std::max_element(types.begin(), types.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == types.end() ? std::string() : most->first;
}

std::optional<ValueKind> FamilyStats::Kind() const {
  const auto most = std::max_element(kinds.begin(), kinds.end());
  if (*most == 0) return std::nullopt;
  return static_cast<ValueKind>(most - kinds.begin());
}

void KeyStats::Add(Bytes key, const KeyFacts* facts) {
  by_type[facts == nullptr ? std::string() : facts->type].Add(key, facts);
}

void KeyStats::Merge(const KeyStats& other) {
  for (const auto& [type, stats] : other.by_type) by_type[type].Merge(stats);
  plan.names += other.plan.names;
  plan.facts += other.plan.facts;
  plan.values += other.plan.values;
}

uint64_t KeyStats::keys() const {
  uint64_t sum = 0;
  for (const auto& [type, stats] : by_type) sum += stats.keys;
  return sum;
}

uint64_t KeyStats::asked() const {
  uint64_t sum = 0;
  for (const auto& [type, stats] : by_type) sum += stats.asked;
  return sum;
}

uint64_t KeyStats::values() const {
  uint64_t sum = 0;
  for (const auto& [type, stats] : by_type) sum += stats.values;
  return sum;
}

void KeyStats::ShareUnknown() {
  const auto found = by_type.find("");
  if (found == by_type.end() || by_type.size() == 1) return;
  FamilyStats unknown = std::move(found->second);
  by_type.erase(found);
  if (by_type.size() == 1) {
    by_type.begin()->second.Merge(unknown);
    return;
  }
  // It is unknown which of these the examples belong to.
  const uint64_t known = keys();
  uint64_t left = unknown.keys;
  FamilyStats* most = &by_type.begin()->second;
  for (auto& [type, stats] : by_type) {
    if (stats.keys > most->keys) most = &stats;
  }
  std::vector<std::pair<FamilyStats*, uint64_t>> shares;
  for (auto& [type, stats] : by_type) {
    const auto share = static_cast<uint64_t>(static_cast<double>(unknown.keys) *
                                             static_cast<double>(stats.keys) / static_cast<double>(known));
    shares.emplace_back(&stats, std::min(share, left));
    left -= shares.back().second;
  }
  for (const auto& [stats, share] : shares) stats->keys += share;
  most->keys += left;
}

}  // namespace prm
