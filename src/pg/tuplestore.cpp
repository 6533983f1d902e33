#include "pg/tuplestore.h"

#include "pg/entry.h"

namespace prm::pg {
// SPI keeps the pointer, and after an error the connection that holds it may not be reachable until the
// subtransaction is rolled back: the registration lives in the memory of the SQL call, and the next one of
// the same name replaces it.
NamedRows::NamedRows(const char *name, TupleDesc desc, Tuplestorestate *rows)
    : exceptions_(std::uncaught_exceptions()) {
  int code = Call([&] {
    relation_ =
        static_cast<EphemeralNamedRelation>(MemoryContextAllocZero(EntryContext(), sizeof *relation_));
    relation_->md.name = const_cast<char *>(name);
    relation_->md.reliddesc = InvalidOid;
    relation_->md.tupdesc = desc;
    relation_->md.enrtype = ENR_NAMED_TUPLESTORE;
    relation_->md.enrtuples = kEstimatedBatchRows;
    relation_->reldata = rows;
    SPI_unregister_relation(name);
    MemoryContext previous = MemoryContextSwitchTo(EntryContext());
    int result = SPI_register_relation(relation_);
    MemoryContextSwitchTo(previous);
    return result;
  });
  if (code != SPI_OK_REL_REGISTER)
    throw Failure(ERRCODE_INTERNAL_ERROR,
                  std::string("could not register ") + name + ": " + SPI_result_code_string(code));
}

NamedRows::~NamedRows() {
  if (std::uncaught_exceptions() != exceptions_) return;
  SPI_unregister_relation(relation_->md.name);
  pfree(relation_);
}

}  // namespace prm::pg
