#include "store/row_images.h"

#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;

bool HasTriggers(const Target &target) {
  if (target.is_alone) {
    return pg::Call([&] {
      Relation relation = relation_open(target.oid, NoLock);
      const TriggerDesc *triggers = relation->trigdesc;
      bool found = false;
      for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i)
        found = found || !triggers->triggers[i].tgisinternal;
      relation_close(relation, NoLock);
      return found;
    });
  }
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal)
                   OR EXISTS (SELECT
                              FROM pg_partition_tree($1::oid::regclass) AS p
                              JOIN pg_trigger AS t ON t.tgrelid = p.relid
                              WHERE NOT t.tgisinternal))sql",
             {pg::SqlParam::OidOf(target.oid)})[0]
      .Bool(0);
}

RowImages::RowImages(const Target &target, const MappingQuery &query) : target_(target) {
  const std::vector<const TargetColumn *> &columns = query.facts().columns;
  std::string is_row;
  for (const KeyColumn &key : target.keys) {
    int place = 0;
    for (size_t i = 0; i < columns.size(); ++i)
      if (columns[i]->number == key.column.number) place = static_cast<int>(i) + 2;
    key_columns_.push_back(place);
    std::string const name = QuoteIdentifier(key.column.name);
    is_row += (is_row.empty() ? "" : " AND ") + key.Equal("stored." + name, "excluded." + name);
  }
  // A GENERATED ALWAYS column keeps its value when the row changes.
  for (size_t i = 0; i < columns.size(); ++i) {
    bool const is_key = std::any_of(target.keys.begin(), target.keys.end(), [&](const KeyColumn &key) {
      return key.column.number == columns[i]->number;
    });
    if (is_key || columns[i]->identity_always) continue;
    image_columns_.emplace_back(static_cast<int>(i) + 2, columns[i]->type);
    stored_columns_.push_back(columns[i]);
  }
  fingerprint_ = Fingerprint();
  // LATERAL and LIMIT make it one look-up in the index for each row. A foreign table or view is read by a set
  // of keys, so the planner must be free to choose.
  stored_.emplace("SELECT excluded.redis_row, found.image FROM redis_rows AS excluded, LATERAL (SELECT " +
                      Expression("stored") + " AS image FROM " + target_.name + " AS stored WHERE " + is_row +
                      " LIMIT 1) AS found",
                  target_.kind == TargetKind::kLocal ? pg::KeptStatement::Planning::kByIndex
                                                     : pg::KeptStatement::Planning::kAsUsual);
}

int64 RowImages::Fingerprint() {
  for (const TargetColumn *column : stored_columns_) {
    const char *type = pg::Call([&] {
      return const_cast<const char *>(format_type_extended(
          column->type, column->typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
    });
    hasher_.Add(TEXTOID, pg::TextDatum(column->name), false);
    hasher_.Add(TEXTOID, pg::TextDatum(type), false);
    AddFieldTypes(column->type);
  }
  return static_cast<int64>(hasher_.FinishImage());
}

// Adds the fields of a composite type, because ALTER TYPE changes them under the same name.
void RowImages::AddFieldTypes(Oid type) {
  TupleDesc desc = pg::Call([&]() -> TupleDesc {
    Oid composite = getBaseType(type);
    if (Oid const element = get_element_type(composite); OidIsValid(element))
      composite = getBaseType(element);
    if (get_typtype(composite) != TYPTYPE_COMPOSITE) return nullptr;
    return lookup_rowtype_tupdesc_copy(composite, -1);
  });
  for (int i = 0; desc != nullptr && i < desc->natts; ++i) {
    Form_pg_attribute const field = TupleDescAttr(desc, i);
    if (field->attisdropped) continue;
    const char *name = pg::Call([&] {
      return const_cast<const char *>(format_type_extended(
          field->atttypid, field->atttypmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
    });
    hasher_.Add(TEXTOID, pg::TextDatum(name), false);
    AddFieldTypes(field->atttypid);
  }
}

PackedItem RowImages::ItemOf(TupleTableSlot *row, bool with_image) {
  for (size_t i = 0; i < key_columns_.size(); ++i) {
    int const column = key_columns_[i];
    hasher_.Add(target_.keys[i].column.type, row->tts_values[column], row->tts_isnull[column]);
  }
  PackedItem item;
  item.hash = hasher_.Finish();
  if (!with_image) return item;
  for (auto [column, type] : image_columns_)
    hasher_.Add(type, row->tts_values[column], row->tts_isnull[column]);
  item.image = hasher_.FinishImage();
  return item;
}

std::map<int, uint64> RowImages::ReadStored() {
  pg::Rows const rows = stored_->Execute();
  std::map<int, uint64> images;
  for (uint64 i = 0; i < rows.size(); ++i)
    images.emplace_hint(images.end(), rows[i].Int4(0), static_cast<uint64>(rows[i].Int8(1)));
  return images;
}

// A function takes a hundred arguments at most, a row more.
std::string RowImages::Expression(const std::string &alias) const {
  std::string fields;
  for (const TargetColumn *column : stored_columns_)
    fields += (fields.empty() ? "" : ", ") + alias + "." + QuoteIdentifier(column->name);
  return "redis_migrate.row_image(ROW(" + fields + ")::pg_catalog.record)";
}

}  // namespace prm
