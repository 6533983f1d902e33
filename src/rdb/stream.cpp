#include "rdb/stream.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "rdb/encoded_string.h"
#include "rdb/listpack.h"
#include "rdb/skip.h"

namespace prm::rdb {

namespace {

constexpr size_t kRawIdSize = 16;
constexpr uint64_t kTimeSize = 8;

enum EntryFlag : int64_t { kDeleted = 1, kSameFields = 2 };

bool Precedes(const StreamId& a, const StreamId& b) { return std::tie(a.ms, a.seq) < std::tie(b.ms, b.seq); }

Status ReadRawId(ByteReader& reader, StreamId& id) {
  PRM_RETURN_IF_ERROR(reader.ReadBigEndian(id.ms));
  return reader.ReadBigEndian(id.seq);
}

Status ReadLengthId(ByteReader& reader, StreamId& id) {
  PRM_RETURN_IF_ERROR(ReadLength(reader, id.ms));
  return ReadLength(reader, id.seq);
}

Status ReadTime(ByteReader& reader, int64_t& time_ms) {
  uint64_t time = 0;
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(time));
  time_ms = static_cast<int64_t>(time);
  return {};
}

// The entries of one listpack: a master entry (number of entries, of deleted ones, field names), then entries
// whose ids are differences to the master id and which may share the master's field names.
class EntryDecoder {
 public:
  EntryDecoder(StreamId master_id, Bytes blob, uint64_t place, ValueVisitor& visitor)
      : master_id_(master_id), listpack_(blob, place), visitor_(visitor) {}

  // first_id: the id of the stream's first entry, once it has been read.
  Status Decode(StreamId& first_id, bool& any_entry) {
    PRM_RETURN_IF_ERROR(listpack_.Open());
    PRM_RETURN_IF_ERROR(ReadMasterEntry());
    while (!listpack_.AtEnd()) {
      StreamId id;
      bool deleted = false;
      visitor_.CheckInterrupts();
      PRM_RETURN_IF_ERROR(ReadEntry(id, deleted));
      if (deleted) {
        ++deleted_;
        continue;
      }
      ++live_;
      if (!any_entry) first_id = id;
      any_entry = true;
      visitor_.OnStreamEntry(id, fields_);
    }
    if (live_ != stated_live_ || deleted_ != stated_deleted_) {
      return listpack_.Corrupt("its master entry does not count the entries that it holds");
    }
    return {};
  }

 private:
  Status ReadMasterEntry() {
    int64_t field_count = 0;
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(stated_live_));
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(stated_deleted_));
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(field_count));
    PRM_RETURN_IF_ERROR(ReadElements(field_count, master_fields_));
    int64_t terminator = 0;
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(terminator));
    if (terminator != 0) return listpack_.Corrupt("the master entry does not end with 0");
    return {};
  }

  Status ReadEntry(StreamId& id, bool& deleted) {
    int64_t flags = 0;
    int64_t ms_delta = 0;
    int64_t seq_delta = 0;
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(flags));
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(ms_delta));
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(seq_delta));
    // The difference of sequence numbers may be negative; unsigned addition wraps to the right number.
    id = {master_id_.ms + static_cast<uint64_t>(ms_delta), master_id_.seq + static_cast<uint64_t>(seq_delta)};
    deleted = (flags & kDeleted) != 0;

    // An entry is followed by the number of its elements, from the flags on: Redis reads backwards.
    int64_t element_count = 3;
    fields_.clear();
    if ((flags & kSameFields) != 0) {
      PRM_RETURN_IF_ERROR(ReadElements(static_cast<int64_t>(master_fields_.size()), elements_));
      for (size_t i = 0; i < elements_.size(); ++i) {
        fields_.emplace_back(master_fields_[i].bytes(), elements_[i].bytes());
      }
      element_count += static_cast<int64_t>(elements_.size());
    } else {
      int64_t field_count = 0;
      PRM_RETURN_IF_ERROR(listpack_.NextInteger(field_count));
      // Checked before doubling: the input may claim any number.
      if (field_count < 0 || field_count > UINT32_MAX)
        return listpack_.Corrupt("impossible number of fields");
      PRM_RETURN_IF_ERROR(ReadElements(2 * field_count, elements_));
      for (size_t i = 0; i < elements_.size(); i += 2) {
        fields_.emplace_back(elements_[i].bytes(), elements_[i + 1].bytes());
      }
      element_count += 1 + static_cast<int64_t>(elements_.size());
    }
    int64_t stated_count = 0;
    PRM_RETURN_IF_ERROR(listpack_.NextInteger(stated_count));
    if (stated_count != element_count) return listpack_.Corrupt("wrong number of elements behind an entry");
    return {};
  }

  // All elements of an entry are kept, since integers are rendered inside them. The vector grows with the
  // elements read, not with the claimed number.
  Status ReadElements(int64_t count, std::vector<PackedElement>& elements) {
    elements.clear();
    if (count < 0) return listpack_.Corrupt("impossible number of fields");
    for (int64_t i = 0; i < count; ++i) {
      visitor_.CheckInterrupts();
      PRM_RETURN_IF_ERROR(listpack_.Next(elements.emplace_back()));
    }
    return {};
  }

  StreamId master_id_;
  ListpackReader listpack_;
  ValueVisitor& visitor_;
  int64_t stated_live_ = 0;
  int64_t stated_deleted_ = 0;
  int64_t live_ = 0;
  int64_t deleted_ = 0;
  std::vector<PackedElement> master_fields_;
  std::vector<PackedElement> elements_;
  StreamFields fields_;
};

Status DecodeEntries(ByteReader& reader, StreamInfo& info, ValueVisitor& visitor) {
  std::string scratch;
  bool any_entry = false;
  uint64_t listpack_count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, listpack_count));
  for (uint64_t i = 0; i < listpack_count; ++i) {
    Bytes raw_id;
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, raw_id));
    if (raw_id.size() != kRawIdSize) return reader.Corrupt("a stream id does not have 16 bytes");
    ByteReader id_reader(raw_id);
    StreamId master_id;
    PRM_RETURN_IF_ERROR(ReadRawId(id_reader, master_id));
    Bytes blob;
    const uint64_t place = reader.offset();
    PRM_RETURN_IF_ERROR(ReadString(reader, scratch, blob));
    EntryDecoder entries(master_id, blob, place, visitor);
    PRM_RETURN_IF_ERROR(entries.Decode(info.first_id, any_entry));
  }
  return {};
}

Status ReadInfo(StreamLayout layout, ByteReader& reader, StreamInfo& info) {
  PRM_RETURN_IF_ERROR(ReadLength(reader, info.length));
  PRM_RETURN_IF_ERROR(ReadLengthId(reader, info.last_id));
  info.entries_added = info.length;
  if (layout == StreamLayout::kListpacks) return {};
  PRM_RETURN_IF_ERROR(ReadLengthId(reader, info.first_id));
  PRM_RETURN_IF_ERROR(ReadLengthId(reader, info.max_deleted_id));
  return ReadLength(reader, info.entries_added);
}

// An entry that was delivered and not acknowledged. The group's list has the time and count of deliveries;
// the consumers' lists have only ids.
struct Delivery {
  StreamId id;
  int64_t time_ms = 0;
  uint64_t count = 0;
  bool is_listed = false;  // among those of a consumer, or of none
};

// In ascending order of id, the order of Redis' radix tree.
Status ReadDeliveries(ByteReader& reader, std::vector<Delivery>& deliveries) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    Delivery delivery;
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadRawId(reader, delivery.id));
    PRM_RETURN_IF_ERROR(ReadTime(reader, delivery.time_ms));
    PRM_RETURN_IF_ERROR(ReadLength(reader, delivery.count));
    if (!deliveries.empty() && !Precedes(deliveries.back().id, delivery.id)) {
      return reader.Corrupt("pending entries are not in order");
    }
    deliveries.push_back(delivery);
  }
  return {};
}

// Reads the ids of pending entries of one consumer, or of none, and looks up their deliveries.
Status DecodePending(StreamPending pending, uint64_t count, ByteReader& reader,
                     std::vector<Delivery>& deliveries, ValueVisitor& visitor) {
  for (uint64_t i = 0; i < count; ++i) {
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(ReadRawId(reader, pending.id));
    const auto delivery =
        std::lower_bound(deliveries.begin(), deliveries.end(), pending.id,
                         [](const Delivery& d, const StreamId& wanted) { return Precedes(d.id, wanted); });
    if (delivery == deliveries.end() || Precedes(pending.id, delivery->id)) {
      return reader.Corrupt("an entry is pending for a consumer but not for its group");
    }
    if (delivery->is_listed) return reader.Corrupt("an entry is pending for two consumers");
    delivery->is_listed = true;
    pending.delivery_time_ms = delivery->time_ms;
    pending.delivery_count = delivery->count;
    visitor.OnStreamPending(pending);
  }
  return {};
}

Status DecodeConsumer(StreamLayout layout, Bytes group, ByteReader& reader, std::vector<Delivery>& deliveries,
                      ValueVisitor& visitor) {
  std::string scratch;
  StreamConsumer consumer;
  consumer.group = group;
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, consumer.name));
  PRM_RETURN_IF_ERROR(ReadTime(reader, consumer.seen_time_ms));
  if (layout >= StreamLayout::kListpacks3) {
    int64_t active_time_ms = 0;
    PRM_RETURN_IF_ERROR(ReadTime(reader, active_time_ms));
  }
  PRM_RETURN_IF_ERROR(ReadLength(reader, consumer.pending));
  visitor.OnStreamConsumer(consumer);
  return DecodePending({group, consumer.name, true, {}, 0, 0}, consumer.pending, reader, deliveries, visitor);
}

// Pending entries that were returned (XNACK): they are in the group's list, but in no consumer's.
Status DecodeReturned(Bytes group, ByteReader& reader, std::vector<Delivery>& deliveries,
                      ValueVisitor& visitor) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  return DecodePending({group, {}, false, {}, 0, 0}, count, reader, deliveries, visitor);
}

Status DecodeGroup(StreamLayout layout, ByteReader& reader, ValueVisitor& visitor) {
  std::string scratch;
  StreamGroup group;
  PRM_RETURN_IF_ERROR(ReadString(reader, scratch, group.name));
  PRM_RETURN_IF_ERROR(ReadLengthId(reader, group.last_delivered_id));
  if (layout != StreamLayout::kListpacks) {
    uint64_t entries_read = 0;  // -1, "unknown", is written as a 64-bit length
    PRM_RETURN_IF_ERROR(ReadLength(reader, entries_read));
    group.entries_read = static_cast<int64_t>(entries_read);
  }
  visitor.OnStreamGroup(group);

  std::vector<Delivery> deliveries;
  PRM_RETURN_IF_ERROR(ReadDeliveries(reader, deliveries));
  uint64_t consumer_count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, consumer_count));
  for (uint64_t i = 0; i < consumer_count; ++i) {
    PRM_RETURN_IF_ERROR(DecodeConsumer(layout, group.name, reader, deliveries, visitor));
  }
  if (layout >= StreamLayout::kListpacks5) {
    PRM_RETURN_IF_ERROR(DecodeReturned(group.name, reader, deliveries, visitor));
  }
  const auto is_listed = [](const Delivery& delivery) { return delivery.is_listed; };
  if (!std::all_of(deliveries.begin(), deliveries.end(), is_listed)) {
    return reader.Corrupt("an entry is pending for a group but for none of its consumers");
  }
  return {};
}

// The limits of the remembered ids, the producers with the ids they sent, and two counters.
Status SkipProducers(ByteReader& reader) {
  PRM_RETURN_IF_ERROR(SkipLengths(reader, 2));
  const Status producers = SkipItems(reader, [&]() -> Status {
    PRM_RETURN_IF_ERROR(SkipString(reader));
    return SkipItems(reader, [&]() -> Status {
      PRM_RETURN_IF_ERROR(SkipString(reader));
      return SkipLengths(reader, 2);
    });
  });
  if (!producers.ok()) return producers;
  return SkipLengths(reader, 2);
}

}  // namespace

Status DecodeStream(StreamLayout layout, ByteReader& reader, ValueVisitor& visitor) {
  StreamInfo info;
  PRM_RETURN_IF_ERROR(DecodeEntries(reader, info, visitor));
  PRM_RETURN_IF_ERROR(ReadInfo(layout, reader, info));
  visitor.OnStreamInfo(info);
  uint64_t group_count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, group_count));
  for (uint64_t i = 0; i < group_count; ++i) {
    PRM_RETURN_IF_ERROR(DecodeGroup(layout, reader, visitor));
  }
  return layout >= StreamLayout::kListpacks4 ? SkipProducers(reader) : Status();
}

Status SkipStream(StreamLayout layout, ByteReader& reader) {
  const bool has_counters = layout >= StreamLayout::kListpacks2;
  const uint64_t consumer_times = layout >= StreamLayout::kListpacks3 ? 2 : 1;
  PRM_RETURN_IF_ERROR(SkipItems(reader, [&] { return SkipStrings(reader, 2); }));
  PRM_RETURN_IF_ERROR(SkipLengths(reader, has_counters ? 8 : 3));
  const Status groups = SkipItems(reader, [&]() -> Status {
    PRM_RETURN_IF_ERROR(SkipString(reader));
    PRM_RETURN_IF_ERROR(SkipLengths(reader, has_counters ? 3 : 2));
    const Status deliveries = SkipItems(reader, [&]() -> Status {
      PRM_RETURN_IF_ERROR(reader.Skip(kRawIdSize + kTimeSize));
      return SkipLengths(reader, 1);
    });
    if (!deliveries.ok()) return deliveries;
    const auto skip_id = [&] { return reader.Skip(kRawIdSize); };
    const Status consumers = SkipItems(reader, [&]() -> Status {
      PRM_RETURN_IF_ERROR(SkipString(reader));
      PRM_RETURN_IF_ERROR(reader.Skip(consumer_times * kTimeSize));
      return SkipItems(reader, skip_id);
    });
    if (!consumers.ok() || layout < StreamLayout::kListpacks5) return consumers;
    return SkipItems(reader, skip_id);
  });
  if (!groups.ok() || layout < StreamLayout::kListpacks4) return groups;
  return SkipProducers(reader);
}

}  // namespace prm::rdb
