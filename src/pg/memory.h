// Memory contexts as C++ objects, and conversion of text.
#pragma once

#include "core/bytes.h"
#include "pg/guard.h"
#include "pg/pg.h"

namespace prm::pg {

// A memory context that lives as long as the object, such as for one batch. Its parent must live longer.
class Context {
 public:
  explicit Context(const char *name, MemoryContext parent = CurrentMemoryContext) {
    context_ = Call([&] { return AllocSetContextCreateInternal(parent, name, ALLOCSET_DEFAULT_SIZES); });
  }
  ~Context() { MemoryContextDelete(context_); }
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;
  MemoryContext get() const { return context_; }
  void Reset() { MemoryContextReset(context_); }

 private:
  MemoryContext context_;
};

// Switches to a memory context for a scope.
class SwitchContext {
 public:
  explicit SwitchContext(MemoryContext context) : previous_(MemoryContextSwitchTo(context)) {}
  ~SwitchContext() { MemoryContextSwitchTo(previous_); }
  SwitchContext(const SwitchContext &) = delete;
  SwitchContext &operator=(const SwitchContext &) = delete;

 private:
  MemoryContext previous_;
};

// Datums in the current memory context; 53200/54000 when they do not fit.
inline Datum TextDatum(Bytes text) {
  return Call(
      [&] { return PointerGetDatum(cstring_to_text_with_len(text.data(), static_cast<int>(text.size()))); });
}
inline Datum ByteaDatum(Bytes bytes) { return TextDatum(bytes); }  // the same varlena layout

// The bytes of a text or bytea datum. Detoasted copies stay in the current memory context.
inline Bytes DatumBytes(Datum datum) {
  auto *varlena_value = Call(
      [&] { return pg_detoast_datum_packed(reinterpret_cast<struct varlena *>(DatumGetPointer(datum))); });
  return Bytes(VARDATA_ANY(varlena_value), VARSIZE_ANY_EXHDR(varlena_value));
}

// A C string in the current memory context.
inline char *CString(Bytes text) {
  return Call([&] { return pnstrdup(text.data(), text.size()); });
}

inline std::string QuoteIdentifier(const std::string &name) {
  return Call([&] { return quote_identifier(name.c_str()); });
}
inline std::string QuoteLiteral(const std::string &text) {
  return Call([&] { return static_cast<const char *>(quote_literal_cstr(text.c_str())); });
}

}  // namespace prm::pg
