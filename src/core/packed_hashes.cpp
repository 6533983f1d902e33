#include "core/packed_hashes.h"

#include <algorithm>
#include <iterator>

namespace prm {

namespace {

void Append(uint64_t word, std::string& bytes) {
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(word >> shift & 0xff);
}

uint64_t Word(const char* bytes) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | static_cast<unsigned char>(bytes[i]);
  return word;
}

Hash128 At(Bytes packed, size_t index) {
  const char* bytes = packed.data() + index * kPackedHashBytes;
  Hash128 hash;
  hash.high = Word(bytes);
  hash.low = Word(bytes + 8);
  return hash;
}

// The index of the first hash that is not below `hash`.
size_t LowerBound(Bytes packed, const Hash128& hash) {
  size_t begin = 0;
  size_t end = packed.size() / kPackedHashBytes;
  while (begin < end) {
    size_t const middle = begin + (end - begin) / 2;
    if (At(packed, middle) < hash)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

}  // namespace

HashRange HashRange::Share(uint64_t index, uint64_t count) {
  uint64_t const size = UINT64_MAX / count;
  HashRange range;
  range.first = index * size;
  if (index + 1 < count) range.last = range.first + size - 1;
  return range;
}

std::string PackHashes(std::vector<Hash128> hashes) {
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  std::string packed;
  packed.reserve(hashes.size() * kPackedHashBytes);
  for (const Hash128& hash : hashes) {
    Append(hash.high, packed);
    Append(hash.low, packed);
  }
  return packed;
}

void UnpackHashes(Bytes packed, const HashRange& range, std::vector<Hash128>& hashes) {
  Hash128 first;
  first.high = range.first;
  for (size_t i = LowerBound(packed, first); i < packed.size() / kPackedHashBytes; ++i) {
    Hash128 const hash = At(packed, i);
    if (!range.Has(hash)) return;
    hashes.push_back(hash);
  }
}

bool PackedHashesContain(Bytes packed, const Hash128& hash) {
  size_t const index = LowerBound(packed, hash);
  return index < packed.size() / kPackedHashBytes && At(packed, index) == hash;
}

void KeepNewest(std::vector<HashChange>& changes) {
  std::stable_sort(changes.begin(), changes.end(),
                   [](const HashChange& a, const HashChange& b) { return a.hash < b.hash; });
  size_t kept = 0;
  for (size_t i = 0; i < changes.size(); ++i)
    if (i + 1 == changes.size() || !(changes[i].hash == changes[i + 1].hash)) changes[kept++] = changes[i];
  changes.resize(kept);
}

std::vector<Hash128> ApplyChanges(const std::vector<Hash128>& hashes, const HashChange* begin,
                                  const HashChange* end) {
  std::vector<Hash128> changed;
  changed.reserve(hashes.size() + static_cast<size_t>(end - begin));
  auto hash = hashes.begin();
  for (const HashChange* change = begin; change != end; ++change) {
    while (hash != hashes.end() && *hash < change->hash) changed.push_back(*hash++);
    if (hash != hashes.end() && *hash == change->hash) ++hash;
    if (change->added) changed.push_back(change->hash);
  }
  changed.insert(changed.end(), hash, hashes.end());
  return changed;
}

std::vector<Hash128> WithoutHashes(const std::vector<Hash128>& hashes, const std::vector<Hash128>& others) {
  std::vector<Hash128> rest;
  std::set_difference(hashes.begin(), hashes.end(), others.begin(), others.end(), std::back_inserter(rest));
  return rest;
}

}  // namespace prm
