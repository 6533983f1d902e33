// Values of rows as texts that their types read again, whatever the settings of the session. The texts of
// large values are kept out of line, and stand for themselves by a mark.
#pragma once

#include "core/journal_block.h"
#include "mapping/target.h"
#include "pg/identity.h"
#include "pg/tuplestore.h"

namespace prm {

// For a scope: dates, intervals, numbers, bytes and names of objects are written unambiguously.
class TextSettings : public pg::LocalSettings {
 public:
  TextSettings() {
    Set("timezone", "UTC");
    Set("datestyle", "ISO, YMD");
    Set("intervalstyle", "postgres");
    Set("extra_float_digits", "3");
    Set("bytea_output", "hex");
    Set("lc_monetary", "C");
    Set("search_path", "pg_catalog, pg_temp");
  }
};

// A large value stands in a row's texts as a byte 0, which no text has, the SHA-256 of its bytes, and perhaps
// the number under which redis_migrate.journal_value has them.
bool IsLargeMark(Bytes text);
// The number in it. Errors: XX001 without one.
int64 ValueOfMark(Bytes mark);
// The part of a text that is the same for the same value.
Bytes Comparable(Bytes text);
bool IsSameText(const std::optional<std::string> &a, const std::optional<std::string> &b);
bool AreSameTexts(const RowText &a, const RowText &b);

// Texts of columns, for rows that have them in a slot. Made for one transaction, under TextSettings.
class ColumnTexts {
 public:
  explicit ColumnTexts(const std::vector<const TargetColumn *> &columns);

  // The text of a column whose value is in this attribute, from 0; -1: it is NULL. It lives in the current
  // memory context or in the slot, or until the next call. A large value gives a mark; its bytes are kept,
  // for this run.
  std::optional<Bytes> Of(size_t column, TupleTableSlot *slot, int attribute,
                          std::optional<int64> keeping_run);
  // Whether two attributes hold the same image.
  bool AreSame(size_t column, TupleTableSlot *slot, int one, int other) const;

 private:
  struct Output {
    Oid type;
    bool is_bytes;  // the text is what is stored
    bool by_value;
    int16 length;
    FmgrInfo function;
  };
  Bytes MarkOf(const Output &output, Datum value, std::optional<int64> keeping_run);

  std::vector<Output> outputs_;
  std::string mark_;
};

// The values of `count` attributes from `first` on, which count from 0.
RowText TextsOf(TupleTableSlot *slot, int first, int count);
// Those of columns, from the attribute `first` on; large values as marks.
RowText TextsOf(ColumnTexts &texts, TupleTableSlot *slot, int first, int count);

// A text[], which may have NULLs.
Datum TextArrayDatum(const RowText &texts);

// The type of a column, or that of a domain over it, as types are named in the journal.
std::string BaseTypeName(const TargetColumn &column);
constexpr char kBytesType[] = "bytea";

// A value of the type of a column from its text, or from a mark with a number; was: the BaseTypeName of the
// column that had it, also a bytea if this one is. Errors: those of the type's input function and of a
// domain; XX001 when the bytes of a large value are gone.
Datum ValueOfText(const TargetColumn &column, const std::string &was, const std::string &text);

}  // namespace prm
