// Values of rows as texts that their types read again, whatever the settings of the session.
#pragma once

#include "mapping/target.h"
#include "pg/identity.h"
#include "pg/tuplestore.h"

namespace prm {

using RowText = std::vector<std::optional<std::string>>;

// For a scope: dates, intervals, numbers, bytes and names of objects are written unambiguously.
class TextSettings : public pg::LocalSettings {
 public:
  TextSettings() {
    Set("datestyle", "ISO, YMD");
    Set("intervalstyle", "postgres");
    Set("extra_float_digits", "3");
    Set("bytea_output", "hex");
    Set("search_path", "pg_catalog, pg_temp");
  }
};

// How a journal remembers a value that a row had later: "" for NULL, otherwise the first 32 hexadecimal
// digits of the SHA-256 of its text.
std::string ValueDigest(const std::optional<std::string> &text);

// The values of `count` attributes from `first` on, which count from 0.
RowText TextsOf(TupleTableSlot *slot, int first, int count);

// A text[], which may have NULLs.
Datum TextArrayDatum(const RowText &texts);
RowText TextsOfArray(Datum array);

// A value of the type of a column from its text. Errors: those of the type's input function.
Datum ValueOfText(const TargetColumn &column, const std::string &text);

}  // namespace prm
