// The columns of redis_batch, the entries of a batch as a relation that a mapping's query selects from.
#pragma once

#include "core/pattern.h"
#include "pg/pg.h"

namespace prm {

constexpr char kBatchName[] = "redis_batch";

enum class Expand { kNone, kElements, kGroups, kPending };

// From a mapping's option, which has been checked.
Expand ExpandFromName(const std::optional<std::string> &name);

// The content of a column of redis_batch.
enum class Content {
  kEntry,
  kKey,
  kKeyBytes,
  kDb,
  kType,
  kExpiresAt,
  kValue,
  kValueBytes,
  kPayload,
  kJson,
  kCapture,
  // with expand => 'elements'
  kField,
  kFieldBytes,
  kMember,
  kMemberBytes,
  kScore,
  kPosition,
  kOrdinal,
  kEntryId,
  kFieldsBytes,
  kFieldExpiresAt,
  // with expand => 'groups' and 'pending'
  kGroupName,
  kGroupNameBytes,
  kLastDeliveredId,
  kEntriesRead,
  kConsumer,
  kConsumerBytes,
  kDeliveredAt,
  kDeliveryCount,
};

struct BatchColumn {
  std::string name;
  Oid type;
  Content content;
  size_t capture = 0;  // kCapture: which
  CaptureType capture_type = CaptureType::kText;
};

// The shape of redis_batch for the keys of a pattern.
class BatchShape {
 public:
  BatchShape(const KeyPattern &pattern, Expand expand);
  const KeyPattern &pattern() const { return pattern_; }
  const std::vector<BatchColumn> &columns() const { return columns_; }
  Expand expand() const { return expand_; }
  // In the current memory context.
  TupleDesc MakeTupleDesc() const;

 private:
  KeyPattern pattern_;
  std::vector<BatchColumn> columns_;
  Expand expand_;
};

// The SQL type of a capture's column: text, bigint, numeric, uuid, inet or date.
Oid CaptureSqlType(CaptureType type);

}  // namespace prm
