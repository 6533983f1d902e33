// Rows of single elements that are identified by the name of the element and that of its key.
#include "store/packed_rows.h"

namespace prm {

namespace {

// The type of value whose elements such a column identifies; nothing: none.
bool IsOf(Content content, rdb::ValueType type) {
  switch (content) {
    case Content::kField:
    case Content::kFieldBytes:
      return type == rdb::ValueType::kHash;
    case Content::kMember:
    case Content::kMemberBytes:
      return type == rdb::ValueType::kSet || type == rdb::ValueType::kZset;
    case Content::kEntryId:
      return type == rdb::ValueType::kStream;
    case Content::kPosition:
    case Content::kOrdinal:
      return type == rdb::ValueType::kList;
    default:
      return false;
  }
}

}  // namespace

void PackedRows::FindElementColumn() {
  if (ExpandFromName(mapping_.expand) != Expand::kElements) return;
  const std::vector<BatchColumn> &columns = elements_.columns();
  elements_needed_.assign(columns.size(), false);
  elements_needed_[0] = true;
  for (size_t k = 0; k < sources_.size(); ++k) {
    bool const is_of_name = sources_[k].name_column >= 0;
    int found = -1;
    for (size_t i = 0; i < columns.size(); ++i) {
      auto const copy = query_.facts().copied.find(columns[i].name);
      bool const is_source =
          is_of_name ? columns[i].name == names_.columns()[static_cast<size_t>(sources_[k].name_column)].name
                     : copy != query_.facts().copied.end() && copy->second == target_.keys[k].column.name;
      if (is_source) found = static_cast<int>(i);
    }
    if (found < 0 || (!is_of_name && element_ != Content::kEntry)) return element_columns_.clear();
    if (!is_of_name) element_ = columns[static_cast<size_t>(found)].content;
    elements_needed_[static_cast<size_t>(found)] = true;
    element_columns_.push_back(found);
  }
}

bool PackedRows::FindsElements(rdb::ValueType type) const {
  return !element_columns_.empty() && IsOf(element_, type);
}

// Elements that are gone, and those that a query may leave out.
void PackedRows::FillElementNames(const std::vector<const source::Entry *> &parts, TupleDesc desc,
                                  pg::Tuplestore &names) {
  std::vector<source::Entry> named;
  auto add = [&](const source::Entry &part, const std::string &elements, uint64_t first_position) {
    if (elements.empty()) return;
    named.emplace_back();
    named.back().db = part.db;
    named.back().key = part.key;
    named.back().payload = elements;
    named.back().first_position = first_position;
    named.back().changed = part.changed;
  };
  for (const source::Entry *part : parts) {
    add(*part, part->gone_elements, part->first_gone);
    if (!query_.facts().yields_each) add(*part, part->payload, part->first_position);
  }
  std::vector<const source::Entry *> entries;
  std::vector<int> which;
  for (const source::Entry &entry : named) {
    which.push_back(static_cast<int>(entries.size()));
    entries.push_back(&entry);
  }
  std::optional<std::vector<std::string>> const any_type;
  FillOptions options = NameOptions(any_type);
  options.by_element = true;
  TupleDesc batch_desc = elements_.MakeTupleDesc();
  pg::Tuplestore batch;
  BatchSink sink(batch_desc, batch);
  FillBatch(elements_, elements_needed_, entries, which, options, sink);
  PutNames(entries, batch_desc, batch, all_keys_, element_columns_, desc, names);
}

void PackedRows::DeleteElementsOf(const std::vector<const source::Entry *> &parts, pg::Tuplestore &yielded,
                                  std::optional<int64> run_id, RowCounts &counts) {
  TupleDesc desc = KeysDesc(all_keys_, false);
  pg::Tuplestore names;
  FillElementNames(parts, desc, names);
  if (names.size() == 0) return;
  Stored stored;
  FindNamed(desc, names, *find_elements_, &yielded, stored);
  DeleteStored(stored, run_id, counts);
}

}  // namespace prm
