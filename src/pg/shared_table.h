// A hash table of fixed size in shared memory whose entries expire: an expired entry is free space.
//
// Keys of any length cost the same: only a fingerprint of 128 bits is stored, SipHash-2-4 under a secret made
// when the table is first started and saved with it. Among n live keys two share a fingerprint with
// probability n^2 / 2^129: 1e-25 for ten million. No text of a key is kept anywhere.
//
// The table is set-associative: a key belongs to one bucket of 32 ways. One of them is its home: where it is
// put if that is free, and where it is looked for first. When all ways of a bucket are live, one of its
// entries is evicted, and the caller learns its owner, so that the eviction can be counted. With random keys
// evictions begin at about 70 % of capacity.
//
// Owners have equal shares of a full bucket: the largest holder loses an entry, so that nobody can push out
// owners who stay within their share. Keys are random, so shares of a bucket are shares of the table, and no
// counter of a whole table has to be kept.
//
// Nothing here allocates, waits for anything but an LWLock, or raises an error.
#pragma once

#include "core/siphash.h"
#include "pg/pg.h"
#include "pg/shared_memory.h"
#include "pg/state_file.h"
#include "pg/time.h"
#include "pg/work_signal.h"

namespace prm::pg {

// Expiry in whole seconds since 2000-01-01 UTC, good until 2136. Rounded up, so that an entry is never freed
// too early; the State knows the exact time.
using Seconds = uint32;
constexpr Seconds kNever = UINT32_MAX;

// From nanoseconds since 1970.
inline Seconds SecondsDown(int64 ns) {
  int64 seconds = ns / kSecondNs - kEpochSeconds;
  return static_cast<Seconds>(std::clamp<int64>(seconds, 0, int64{kNever} - 1));
}
inline Seconds SecondsUp(int64 ns) {
  int64 seconds = (ns - 1) / kSecondNs + 1 - kEpochSeconds;
  return static_cast<Seconds>(std::clamp<int64>(seconds, 1, int64{kNever} - 1));
}

// `State` is the plain data stored per key. `Owner` is the number of the owner of an entry (the slot of a
// policy).
//
// `Shares` says who shares a full bucket with whom, and what is lost with an entry:
//   static constexpr int kLevels;
//   uint64 Group(int level, Owner) const;  // level 0 is the widest: databases, for example. The groups of a
//                                          // level lie within those of the level before
//   static bool IsPrecious(const State &, Seconds now);  // goes after all others of its owner
//   static int KindOf(const State &);     // kinds of precious entries have equal shares as well
//   static uint32 Worth(const State &);   // among equals the lowest goes, then what expires first
template <typename State, typename Shares>
class SharedTable {
  static_assert(std::is_trivially_copyable_v<State>, "it lives in shared memory and in a file");

 public:
  using Owner = uint16;
  static constexpr Owner kNobody = UINT16_MAX;
  static constexpr int kPartitions = 256;  // LWLocks, from first_lock on
  static constexpr int kWays = 32;
  // Bytes per entry in total; 48 for a State of 24 bytes.
  static constexpr size_t kEntryBytes =
      sizeof(State) + sizeof(Hash128) + 2 * sizeof(uint16) + sizeof(Seconds);

 private:
  struct Entry {
    Hash128 key;
    State state;
  };
  // Fields that are searched are stored together: a lookup touches the cache line of the tags and those of
  // one entry.
  struct alignas(64) Bucket {
    uint16 tags[kWays];
    Seconds expires[kWays];  // 0: never used
    Owner owners[kWays];
    Entry entries[kWays];
  };
  struct Header {
    SipKey secret;
    uint64 buckets;
    pg_atomic_uint32 changed;  // since the last save
  };

 public:
  // The table begins `offset` bytes (a multiple of 64) after the start of the area's memory.
  constexpr SharedTable(const pg::SharedArea *area, size_t offset, int first_lock)
      : area_(area), offset_(offset), first_lock_(first_lock) {}

  // The size of a table of about so many bytes, at least one bucket.
  static size_t Bytes(size_t about) { return sizeof(Bucket) + BucketsIn(about) * sizeof(Bucket); }

  // Initializes an empty table with a new secret. `memory` is the area's, zeroed: called while the area is
  // initialised.
  void Initialize(void *memory, size_t about) {
    Header *header = HeaderIn(memory);
    header->buckets = BucketsIn(about);
    pg_atomic_init_u32(&header->changed, 0);
    if (!pg_strong_random(header->secret.data(), sizeof header->secret)) header->secret = RandomSipKey();
  }

  const SipKey &secret() const { return header()->secret; }
  uint64 capacity() const { return header()->buckets * kWays; }

  // Holds the locks of one or several keys for a scope, taken in a fixed order. No call that may raise an
  // error, wait or allocate may happen meanwhile.
  class KeyLocks {
   public:
    static constexpr int kMostKeys = 32;
    KeyLocks(const SharedTable &table, const Hash128 *keys, int count) : table_(table) {
      Assert(count <= kMostKeys);
      for (int i = 0; i < count; i++) {
        const Bucket *bucket = table.BucketOf(keys[i]);
        const int home = Home(keys[i]);
        // Prefetches what Find reads if the key is at home, while the lock is taken.
        __builtin_prefetch(&bucket->tags[home]);
        __builtin_prefetch(&bucket->expires[home]);
        __builtin_prefetch(&bucket->entries[home].key);
        __builtin_prefetch(&bucket->entries[home].state);
        uint8 partition = table.Partition(bucket);
        int at = std::lower_bound(partitions_, partitions_ + count_, partition) - partitions_;
        if (at < count_ && partitions_[at] == partition) continue;
        std::move_backward(partitions_ + at, partitions_ + count_, partitions_ + count_ + 1);
        partitions_[at] = partition;
        count_++;
      }
      for (int i = 0; i < count_; i++) LWLockAcquire(table_.lock(partitions_[i]), LW_EXCLUSIVE);
    }
    ~KeyLocks() {
      for (int i = count_; i-- > 0;) LWLockRelease(table_.lock(partitions_[i]));
    }
    KeyLocks(const KeyLocks &) = delete;
    KeyLocks &operator=(const KeyLocks &) = delete;

   private:
    const SharedTable &table_;
    int count_ = 0;
    uint8 partitions_[kMostKeys];
  };

  // A place in the table, valid while the lock of its key is held; false for none.
  class Place {
   public:
    explicit operator bool() const { return bucket_ != nullptr; }
    State &state() const { return bucket_->entries[way_].state; }
    Owner owner() const { return bucket_->owners[way_]; }
    Seconds expires() const { return bucket_->expires[way_]; }
    void set_expires(Seconds expires) const { bucket_->expires[way_] = expires; }
    // Frees the entry.
    void Remove() const { bucket_->expires[way_] = 0; }

   private:
    friend class SharedTable;
    Bucket *bucket_ = nullptr;
    int way_ = 0;
  };

  // The entry of a key, unless it is absent or has expired.
  Place Find(const Hash128 &key, Seconds now) const {
    Place place;
    Bucket *bucket = BucketOf(key);
    const uint16 tag = Tag(key);
    for (int i = 0, way = Home(key); i < kWays; i++, way = (way + 1) % kWays)
      if (bucket->tags[way] == tag && bucket->expires[way] > now && bucket->entries[way].key == key) {
        place.bucket_ = bucket;
        place.way_ = way;
        break;
      }
    return place;
  }

  // The entry that a full bucket gave up for a new one.
  struct Evicted {
    Owner owner = kNobody;  // kNobody: nothing
    bool precious = false;
  };

  // The precious entries of its own owner that a new entry may replace.
  enum class Spare { kNewer, kOlder, kAll };

  // Inserts an entry for a key that Find did not find. No place if the bucket is full and all its entries are
  // spared.
  Place Insert(const Hash128 &key, Owner owner, const State &state, Seconds now, Seconds expires,
               const Shares &shares, Evicted *evicted, Spare spare = Spare::kNewer) const {
    Place place;
    Bucket *bucket = BucketOf(key);
    int way = Home(key);
    if (bucket->expires[way] > now)
      for (int other = 0; other < kWays; other++)
        if (bucket->expires[other] < bucket->expires[way]) way = other;
    if (bucket->expires[way] > now) {
      way = Loser(*bucket, owner, state, now, shares, spare);
      const bool precious = Shares::IsPrecious(bucket->entries[way].state, now);
      if (spare == Spare::kAll && precious && bucket->owners[way] == owner) return place;
      *evicted = {bucket->owners[way], precious};
    }
    bucket->tags[way] = Tag(key);
    bucket->expires[way] = expires;
    bucket->owners[way] = owner;
    bucket->entries[way] = Entry{key, state};
    place.bucket_ = bucket;
    place.way_ = way;
    return place;
  }

  // Call it for every change: an idle table is not saved again, and the first change after a save wakes the
  // process that saves. That takes locks, so not under KeyLocks.
  void NoteChange() const {
    if (changed() || pg_atomic_exchange_u32(&header()->changed, 1) != 0) return;
    if (pg::signal_save != nullptr) pg::signal_save();
  }
  // After a save that failed.
  void NoteUnsaved() const { pg_atomic_write_u32(&header()->changed, 1); }
  bool changed() const { return pg_atomic_read_u32(&header()->changed) != 0; }
  // Returns whether there was a change since the last save, and resets that.
  bool TakeChanged() const { return pg_atomic_exchange_u32(&header()->changed, 0) != 0; }

  // Calls body(key, state, owner, expires) for each live entry, partition by partition with its lock held;
  // body must not do what is forbidden under KeyLocks.
  template <typename Body>
  void ForEach(Seconds now, Body body) const {
    for (int partition = 0; partition < kPartitions; partition++) {
      LWLockAcquire(lock(partition), LW_SHARED);
      ForEachIn(partition, now, body);
      LWLockRelease(lock(partition));
    }
  }

  // Frees the live entries for which body(key, state, owner) is true; returns how many.
  template <typename Body>
  uint64 RemoveIf(Seconds now, Body body) const {
    uint64 removed = 0;
    for (int partition = 0; partition < kPartitions; partition++) {
      LWLockAcquire(lock(partition), LW_EXCLUSIVE);
      for (uint64 b = partition; b < header()->buckets; b += kPartitions) {
        Bucket &bucket = buckets()[b];
        for (int way = 0; way < kWays; way++)
          if (bucket.expires[way] > now &&
              body(bucket.entries[way].key, bucket.entries[way].state, bucket.owners[way])) {
            bucket.expires[way] = 0;
            removed++;
          }
      }
      LWLockRelease(lock(partition));
    }
    return removed;
  }

  // Writes the secret and the live entries. `alone`: no other process runs any more (the postmaster at
  // shutdown cannot take locks). Entries are copied out of a partition under its lock and written after the
  // lock is released, so that nobody waits for the disk.
  void Save(StateFileWriter &file, Seconds now, bool alone) const {
    file.Put(header()->secret);
    for (int partition = 0; partition < kPartitions; partition++) {
      const uint64 most = (header()->buckets + kPartitions - 1) / kPartitions * kWays;
      auto *copies = static_cast<SavedEntry *>(file.Buffer(most * sizeof(SavedEntry)));
      if (copies == nullptr) return;
      uint64 count = 0;
      if (!alone) LWLockAcquire(lock(partition), LW_SHARED);
      ForEachIn(partition, now, [&](const Hash128 &key, const State &state, Owner owner, Seconds expires) {
        copies[count++] = SavedEntry{key, state, expires, owner};
      });
      if (!alone) LWLockRelease(lock(partition));
      file.Put(count);
      file.Write(copies, count * sizeof(SavedEntry));
    }
  }

  // Reads what Save wrote into the empty table while the area is initialised. The table may have another size
  // than the saved one: entries that do not fit are evicted as usual; returns their number. `owner_of` maps a
  // saved owner to a current one, kNobody for none.
  template <typename OwnerOf>
  uint64 Load(StateFileReader &file, void *memory, Seconds now, const Shares &shares, OwnerOf owner_of) {
    Header *header_now = HeaderIn(memory);
    SipKey secret_then;
    file.Get(&secret_then);
    if (!file.ok()) return 0;
    header_now->secret = secret_then;
    memory_ = memory;
    uint64 lost = 0;
    for (int partition = 0; partition < kPartitions; partition++) {
      uint64 count = 0;
      file.Get(&count);
      for (uint64 i = 0; file.ok() && i < count; i++) {
        SavedEntry saved;
        file.Get(&saved);
        if (!file.ok() || saved.expires <= now) continue;
        Owner owner = owner_of(saved.owner);
        if (owner == kNobody) continue;
        Evicted evicted;
        Insert(saved.key, owner, saved.state, now, saved.expires, shares, &evicted);
        if (evicted.owner != kNobody) lost++;
      }
    }
    memory_ = nullptr;
    return lost;
  }

 private:
  struct SavedEntry {
    Hash128 key;
    State state;
    Seconds expires;
    Owner owner;
  };

  static uint64 BucketsIn(size_t about) { return std::max<uint64>(1, about / sizeof(Bucket)); }
  // Tag 0 is for ways that were never used. Those have no expiry either, so a key may have tag 0, too.
  static uint16 Tag(const Hash128 &key) { return static_cast<uint16>(key.high); }
  static int Home(const Hash128 &key) { return static_cast<int>((key.high >> 16) % kWays); }

  // The ways of a full bucket, as bits.
  using Ways = uint32;
  static_assert(kWays == 32);
  static bool Has(Ways ways, int way) { return (ways >> way & 1) != 0; }

  // Reduces the ways to those of the group that holds most. The new entry counts for its group, `own`, which
  // loses against equal groups.
  template <typename Group>
  static Ways Largest(Ways ways, const Group (&groups)[kWays], Group own) {
    std::pair<int, bool> most{0, false};
    Ways kept = 0;
    for (int way = 0; way < kWays; way++) {
      if (!Has(ways, way)) continue;
      const bool is_own = groups[way] == own;
      int count = is_own ? 1 : 0;
      for (int other = 0; other < kWays; other++) count += Has(ways, other) && groups[other] == groups[way];
      const std::pair<int, bool> size{count, is_own};
      if (size > most) {
        most = size;
        kept = 0;
      }
      if (size == most) kept |= Ways{1} << way;
    }
    return kept;
  }

  // The way of a full bucket that is evicted for a new entry of this owner.
  static int Loser(const Bucket &bucket, Owner owner, const State &state, Seconds now, const Shares &shares,
                   Spare spare) {
    Ways ways = ~Ways{0};
    if (!std::all_of(bucket.owners, bucket.owners + kWays, [&](Owner other) { return other == owner; }))
      for (int level = 0; level < Shares::kLevels; level++) {
        uint64 groups[kWays];
        for (int way = 0; way < kWays; way++) groups[way] = shares.Group(level, bucket.owners[way]);
        ways = Largest(ways, groups, shares.Group(level, owner));
      }
    Ways precious = 0;
    for (int way = 0; way < kWays; way++)
      if (Has(ways, way) && Shares::IsPrecious(bucket.entries[way].state, now)) precious |= Ways{1} << way;
    const bool all_precious = precious == ways;
    if (!all_precious) {
      ways &= ~precious;
    } else {
      int kinds[kWays];
      for (int way = 0; way < kWays; way++) kinds[way] = Shares::KindOf(bucket.entries[way].state);
      ways = Largest(ways, kinds, Shares::KindOf(state));
    }
    int loser = -1;
    for (int way = 0; way < kWays; way++) {
      if (!Has(ways, way)) continue;
      auto loss = [&](int of) {
        const Seconds expires = bucket.expires[of];
        const bool newest = all_precious && spare == Spare::kOlder;
        return std::make_pair(Shares::Worth(bucket.entries[of].state), newest ? ~expires : expires);
      };
      if (loser < 0 || loss(way) < loss(loser)) loser = way;
    }
    return loser;
  }

  Header *HeaderIn(void *memory) const {
    return reinterpret_cast<Header *>(static_cast<char *>(memory) + offset_);
  }
  // The area does not know its memory yet while it is initialised.
  Header *header() const { return HeaderIn(memory_ != nullptr ? memory_ : area_->memory()); }
  Bucket *buckets() const {
    return reinterpret_cast<Bucket *>(reinterpret_cast<char *>(header()) + sizeof(Bucket));
  }
  Bucket *BucketOf(const Hash128 &key) const {
    return &buckets()[static_cast<uint64>((static_cast<unsigned __int128>(key.low) * header()->buckets) >>
                                          64)];
  }
  uint8 Partition(const Bucket *bucket) const {
    return static_cast<uint8>(static_cast<uint64>(bucket - buckets()) % kPartitions);
  }
  LWLock *lock(int partition) const { return area_->lock(first_lock_ + partition); }

  template <typename Body>
  void ForEachIn(int partition, Seconds now, Body body) const {
    for (uint64 b = partition; b < header()->buckets; b += kPartitions) {
      const Bucket &bucket = buckets()[b];
      for (int way = 0; way < kWays; way++)
        if (bucket.expires[way] > now)
          body(bucket.entries[way].key, bucket.entries[way].state, bucket.owners[way], bucket.expires[way]);
    }
  }

  const pg::SharedArea *area_;
  size_t offset_;
  int first_lock_;
  void *memory_ = nullptr;
};

}  // namespace prm::pg
