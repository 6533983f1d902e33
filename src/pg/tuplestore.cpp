#include "pg/tuplestore.h"

#include "pg/entry.h"
#include "pg/spi.h"

namespace prm::pg {

NamedRows::NamedRows(const char *name, TupleDesc desc, Tuplestorestate *rows, double estimate)
    : relation_(Spi::Current().relation(name)) {
  relation_.md.name = const_cast<char *>(name);
  relation_.md.reliddesc = InvalidOid;
  relation_.md.tupdesc = desc;
  relation_.md.enrtype = ENR_NAMED_TUPLESTORE;
  relation_.md.enrtuples = estimate;
  relation_.reldata = rows;
  int code = Call([&] {
    // SPI keeps a list of these, so they must live as long as the connection.
    MemoryContext previous = MemoryContextSwitchTo(EntryContext());
    SPI_unregister_relation(name);
    int result = SPI_register_relation(&relation_);
    MemoryContextSwitchTo(previous);
    return result;
  });
  if (code != SPI_OK_REL_REGISTER)
    throw Failure(ERRCODE_INTERNAL_ERROR,
                  std::string("could not register ") + name + ": " + SPI_result_code_string(code));
}

// After an error it stays registered, without rows, because the connection may not be SPI's current one until
// the subtransaction is rolled back. The next one of the same name replaces it.
NamedRows::~NamedRows() {
  relation_.reldata = nullptr;
  if (!unwinds()) SPI_unregister_relation(relation_.md.name);
}

}  // namespace prm::pg
