#include "undo/journal_reader.h"

#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "write/row_texts.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::vector<JournalLine> ReadLines(Bytes entries, size_t columns, size_t keys) {
  std::vector<JournalLine> lines;
  if (!ReadJournalBlock(entries, columns, keys, lines))
    throw pg::Failure(ERRCODE_DATA_CORRUPTED, "a block of the journal is damaged");
  return lines;
}

}  // namespace

std::vector<JournalBlockRead> ReadJournal(int64 run_id, int64 before, int most_lines, int64 most_bytes) {
  pg::SnapshotScope snapshot;  // blocks are fetched from TOAST
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT journal_id, mapping_id, target, columns, keys, salt, entries, types
            FROM (SELECT j.*, sum(octet_length(j.entries)) OVER (ORDER BY journal_id DESC) AS bytes,
                         sum(j.lines) OVER (ORDER BY journal_id DESC) AS all_lines,
                         row_number() OVER (ORDER BY journal_id DESC) AS n
                  FROM (SELECT * FROM redis_migrate.journal WHERE run_id = $1 AND journal_id < $2
                        ORDER BY journal_id DESC LIMIT $3) AS j) AS j
            WHERE n = 1 OR (bytes <= $4 AND all_lines <= $3)
            ORDER BY journal_id DESC)sql",
      {SqlParam::Int8(run_id), SqlParam::Int8(before), SqlParam::Int4(most_lines),
       SqlParam::Int8(most_bytes)});
  std::vector<JournalBlockRead> blocks;
  for (uint64 i = 0; i < rows.size(); ++i) {
    pg::Row const row = rows[i];
    JournalBlockRead block = {row.Int8(0),
                              run_id,
                              row.Int8(1),
                              row.Text(2),
                              row.TextArray(3),
                              row.TextArray(7),
                              static_cast<size_t>(row.Int4(4)),
                              {},
                              {}};
    if (block.types.size() != block.columns.size())
      throw pg::Failure(ERRCODE_DATA_CORRUPTED, "a block of the journal is damaged");
    Bytes const salt = pg::DatumBytes(row.Value(5));
    memcpy(block.salt.data(), salt.data(), std::min(salt.size(), sizeof block.salt));
    block.lines = ReadLines(pg::DatumBytes(row.Value(6)), block.columns.size(), block.keys);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

void StrikeOff(const JournalBlockRead &block, const std::vector<bool> &is_undone) {
  JournalBlock left;
  bool deletes = false;
  std::vector<int64> values;
  for (size_t i = 0; i < block.lines.size(); ++i) {
    const JournalLine &line = block.lines[i];
    if (!is_undone[i]) {
      left.Add(line);
      deletes = deletes || !line.later;
    } else if (line.earlier) {
      for (const auto &text : *line.earlier)
        if (text && IsLargeMark(*text)) values.push_back(ValueOfMark(*text));
    }
  }
  if (left.lines() == static_cast<int>(block.lines.size())) return;
  pg::AsExtensionOwner as_owner;
  SqlParam const run = SqlParam::Int8(block.run_id), id = SqlParam::Int8(block.id);
  if (left.lines() == 0)
    Spi::ExecuteKept("DELETE FROM redis_migrate.journal WHERE run_id = $1 AND journal_id = $2", {run, id});
  else
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.journal
              SET entries = $3, lines = $4, deletes = $5
              WHERE run_id = $1 AND journal_id = $2)sql",
        {run, id, SqlParam::Bytea(left.bytes()), SqlParam::Int4(left.lines()), SqlParam::Bool(deletes)});
  if (!values.empty())
    Spi::ExecuteKept("DELETE FROM redis_migrate.journal_value WHERE value_id = ANY ($1)",
                     {SqlParam::Int8Array(values)});
}

}  // namespace prm

// redis_migrate.journal_lines(columns integer, keys integer, entries bytea): see the SQL comment. Errors:
// XX001.
PRM_FUNCTION(journal_lines) {
  using namespace prm;
  int const columns = PG_GETARG_INT32(0), keys = PG_GETARG_INT32(1);
  if (columns < 0 || keys < 0 || columns > MaxHeapAttributeNumber)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "columns and keys must be numbers of columns");
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  std::vector<JournalLine> const lines =
      ReadLines(pg::DatumBytes(PG_GETARG_DATUM(2)), static_cast<size_t>(columns), static_cast<size_t>(keys));
  pg::Context context("redis_migrate line");
  pg::SwitchContext in_context(context.get());
  int32 number = 0;
  for (const JournalLine &line : lines) {
    context.Reset();
    bool const is_update = line.earlier && line.later;
    RowText shown;
    std::vector<Datum> changed;
    for (size_t i = 0; i < static_cast<size_t>(columns); ++i) {
      if (is_update) changed.push_back(BoolGetDatum((*line.later)[i].has_value()));
      if (!line.earlier) continue;
      const auto &value = (*line.earlier)[i];
      shown.push_back(value && IsLargeMark(*value) ? std::to_string(ValueOfMark(*value)) : value);
    }
    Datum values[] = {Int32GetDatum(++number),
                      pg::TextDatum(!line.earlier ? "insert"
                                    : !line.later ? "delete"
                                                  : "update"),
                      TextArrayDatum(line.key), Datum{0}, Datum{0}};
    bool nulls[] = {false, false, false, !line.earlier, !is_update};
    if (line.earlier) values[3] = TextArrayDatum(shown);
    Datum *const flags = changed.data();
    if (is_update)
      values[4] = pg::Call(
          [&] { return PointerGetDatum(construct_array(flags, columns, BOOLOID, 1, true, TYPALIGN_CHAR)); });
    pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  }
  return Datum(0);
}
