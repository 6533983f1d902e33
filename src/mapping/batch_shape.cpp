#include "mapping/batch_shape.h"

#include "pg/guard.h"

namespace prm {

Expand ExpandFromName(const std::optional<std::string> &name) {
  if (!name) return Expand::kNone;
  if (*name == "elements") return Expand::kElements;
  return *name == "groups" ? Expand::kGroups : Expand::kPending;
}

Oid CaptureSqlType(CaptureType type) {
  switch (type) {
    case CaptureType::kInt:
      return INT8OID;
    case CaptureType::kNumber:
      return NUMERICOID;
    case CaptureType::kUuid:
      return UUIDOID;
    case CaptureType::kInet:
      return INETOID;
    case CaptureType::kDate:
    case CaptureType::kMonth:
      return DATEOID;
    case CaptureType::kText:
    case CaptureType::kHex:
    case CaptureType::kEmail:
      return TEXTOID;
  }
  return TEXTOID;
}

BatchShape::BatchShape(const KeyPattern &pattern, Expand expand) : pattern_(pattern), expand_(expand) {
  columns_ = {
      {"entry", INT4OID, Content::kEntry},         {"key", TEXTOID, Content::kKey},
      {"key_bytes", BYTEAOID, Content::kKeyBytes}, {"db", INT4OID, Content::kDb},
      {"type", TEXTOID, Content::kType},           {"expires_at", TIMESTAMPTZOID, Content::kExpiresAt},
      {"payload", BYTEAOID, Content::kPayload}};
  auto add = [this](std::initializer_list<BatchColumn> more) { columns_.insert(columns_.end(), more); };
  switch (expand) {
    case Expand::kNone:
      add({{"value", TEXTOID, Content::kValue},
           {"value_bytes", BYTEAOID, Content::kValueBytes},
           {"json", JSONBOID, Content::kJson}});
      break;
    case Expand::kElements:
      add({{"field", TEXTOID, Content::kField},
           {"field_bytes", BYTEAOID, Content::kFieldBytes},
           {"member", TEXTOID, Content::kMember},
           {"member_bytes", BYTEAOID, Content::kMemberBytes},
           {"score", FLOAT8OID, Content::kScore},
           {"position", INT8OID, Content::kPosition},
           {"ordinal", INT8OID, Content::kOrdinal},
           {"entry_id", TEXTOID, Content::kEntryId},
           {"fields_bytes", BYTEAARRAYOID, Content::kFieldsBytes},
           {"value", TEXTOID, Content::kValue},
           {"value_bytes", BYTEAOID, Content::kValueBytes},
           {"json", JSONBOID, Content::kJson},
           {"field_expires_at", TIMESTAMPTZOID, Content::kFieldExpiresAt}});
      break;
    case Expand::kGroups:
      add({{"group_name", TEXTOID, Content::kGroupName},
           {"group_name_bytes", BYTEAOID, Content::kGroupNameBytes},
           {"last_delivered_id", TEXTOID, Content::kLastDeliveredId},
           {"entries_read", INT8OID, Content::kEntriesRead}});
      break;
    case Expand::kPending:
      add({{"group_name", TEXTOID, Content::kGroupName},
           {"group_name_bytes", BYTEAOID, Content::kGroupNameBytes},
           {"consumer", TEXTOID, Content::kConsumer},
           {"consumer_bytes", BYTEAOID, Content::kConsumerBytes},
           {"entry_id", TEXTOID, Content::kEntryId},
           {"delivered_at", TIMESTAMPTZOID, Content::kDeliveredAt},
           {"delivery_count", INT8OID, Content::kDeliveryCount}});
      break;
  }
  for (size_t i = 0; i < pattern.captures().size(); ++i)
    columns_.push_back({pattern.captures()[i].name, CaptureSqlType(pattern.captures()[i].type),
                        Content::kCapture, i, pattern.captures()[i].type});
}

TupleDesc BatchShape::MakeTupleDesc() const {
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(static_cast<int>(columns_.size()));
    for (size_t i = 0; i < columns_.size(); ++i)
      TupleDescInitEntry(desc, static_cast<AttrNumber>(i + 1), columns_[i].name.c_str(), columns_[i].type, -1,
                         0);
    TupleDescFinalize(desc);
    return desc;
  });
}

}  // namespace prm
