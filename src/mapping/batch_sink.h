// Where the rows of redis_batch go.
#pragma once

#include "mapping/row_projection.h"
#include "pg/tuplestore.h"

namespace prm {

// A tuplestore, for a query that is run over it, or a query that takes each row as it comes.
class BatchSink {
 public:
  // desc: of redis_batch.
  BatchSink(TupleDesc desc, pg::Tuplestore &rows)
      : desc_(desc),
        rows_(rows.get()),
        values_(static_cast<size_t>(desc->natts)),
        nulls_(std::make_unique<bool[]>(values_.size())) {
    std::fill_n(nulls_.get(), values_.size(), true);
  }
  explicit BatchSink(RowProjection &projection) : projection_(&projection) {}

  // The columns of the row that is put next.
  Datum *values() { return projection_ != nullptr ? projection_->row()->tts_values : values_.data(); }
  bool *nulls() { return projection_ != nullptr ? projection_->row()->tts_isnull : nulls_.get(); }

  // Plain C, for use inside pg::Call. Errors: 53200, those of the query.
  void Put() {
    if (projection_ != nullptr)
      projection_->Project();
    else
      tuplestore_putvalues(rows_, desc_, values_.data(), nulls_.get());
  }

 private:
  RowProjection *projection_ = nullptr;
  TupleDesc desc_ = nullptr;
  Tuplestorestate *rows_ = nullptr;
  std::vector<Datum> values_;
  std::unique_ptr<bool[]> nulls_;
};

}  // namespace prm
