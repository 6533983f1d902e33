// Reads the keys of a server with SCAN and DUMP, at the pace of the caller and without holding anything in
// Redis.
//
// Every key that exists from the start of the scan to its end is returned. The name of a key that is created
// or deleted meanwhile may be. What SCAN repeats is dropped: it does so only when a table has shrunk, and
// then only names that it returned shortly before (redis 7.0 src/dict.c, comment on dictScan: a bucket of the
// smaller table holds exactly the buckets that were visited last), so that knowing the most recent names is
// enough.
//
// Value and expiry belong together: the expiry is read before and after the value, and the key is read again
// if they differ. No MULTI is needed, so a proxy that lacks it will do.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/recent_names.h"
#include "redis/connection.h"
#include "source/scan_position.h"
#include "source/source.h"

namespace prm::source {

struct ScanOptions {
  std::vector<int> databases;                      // at least one
  size_t batch_keys = 5000;                        // a batch has no more entries than this
  uint64_t batch_bytes = 8 << 20;                  // nor more bytes, unless a single entry does
  uint64_t bytes_in_flight = 8 << 20;              // of values asked for and not yet received
  long scan_count = 1000;                          // COUNT of SCAN
  uint64_t max_value_bytes = uint64_t{512} << 20;  // larger values are kTooLarge
};

// Sizes are asked before values, because unread replies count towards Redis' maxmemory. MEMORY USAGE is an
// estimate for collections. Where it is missing or forbidden, STRLEN tells the size of strings, and every key
// whose size stays unknown is read with nothing else in flight.
class ScanSource : public Source {
 public:
  // Prepares a scan of the databases in ascending order, from `position` (of an earlier Batch) or, if it is
  // empty, from the start. The connection must be used for nothing else until the source is gone; the
  // database that is selected in it changes. Connection and filter must outlive the source. Errors:
  // kInvalidArgument (options, position), those of Connection.
  static Result<std::unique_ptr<ScanSource>> Open(redis::Connection& connection, const ScanOptions& options,
                                                  KeyFilter& filter, const std::string& position);

  // A batch ends with a page of SCAN where its limits allow it. Its position is the end of the last page of
  // which everything has been returned; resuming from it repeats at most the entries of one page begun.
  // Before it returns, the requests for what follows are on their way.
  // After an error or an exception the source is dead: open another one from the position that was stored.
  // Errors: those of Connection; an error reply for a single key carries the key in its detail.
  Result<bool> Next(Batch& batch) override;

  // The position that Open was given meant nothing to this server, so that the scan began at the start.
  bool restarted() const { return restarted_; }

  // Names that SCAN returned more than once.
  uint64_t duplicates() const { return duplicates_; }

 private:
  enum class Stage { kSizing, kSized, kReading, kDone };

  // One name between SCAN and batch.
  struct Slot {
    Stage stage = Stage::kSizing;
    int reads = 0;      // times that it was read
    uint64_t size = 0;  // as charged to bytes_in_flight_
    Entry entry;
  };

  // Where the entries of a page of SCAN end, and what to note when they have been returned.
  struct PageEnd {
    uint64_t end;  // number of the first slot after the page
    uint64_t names;
    ScanPosition position;
  };

  enum class Command { kSelect, kScan, kMemoryUsage, kStrlen, kRead };

  struct Request {
    Command command;
    uint64_t slot;
  };

  // An expiry as PEXPIRETIME tells it.
  static constexpr int64_t kNoExpiry = -1;
  static constexpr int64_t kNoKey = -2;

  ScanSource(redis::Connection& connection, const ScanOptions& options, KeyFilter& filter);

  Status Prepare(const std::string& position);
  Status Fill(Batch& batch);
  Status WorkAhead();
  bool Collect(Batch& batch);
  bool PageEndsBatch(const Batch& batch, uint64_t names);
  void PlanNames();
  void PlanReads();
  void AskSize(Command command, uint64_t slot);
  void AskValue(uint64_t slot);
  void AskExpiry(Bytes key);

  Status Answer();
  Status AnswerScan();
  Status AnswerSize(const Request& request);
  Status AnswerRead(uint64_t slot);
  void SetSize(Slot& slot, uint64_t size);
  void Finish(Slot& slot);
  Result<redis::Reply> ReceiveFor(uint64_t slot);
  Result<int64_t> ReceiveExpiry(uint64_t slot);
  Status TakePage(const redis::ReplyView& names);

  Slot& At(uint64_t slot) { return slots_[slot - first_slot_]; }
  uint64_t end_slot() const { return first_slot_ + slots_.size(); }
  bool SameExpiry(int64_t before, int64_t after) const;
  Error ForKey(Error error, const Entry& entry) const;
  Error UnknownReply(const char* command) const;

  redis::Connection& connection_;
  ScanOptions options_;
  KeyFilter& filter_;
  bool has_pexpiretime_ = true;
  bool has_memory_usage_ = true;
  bool restarted_ = false;
  uint64_t duplicates_ = 0;
  std::optional<Error> dead_;

  // Where SCAN is. db_index_ may be one past the end: then everything is under way.
  size_t db_index_ = 0;
  std::string cursor_ = "0";
  bool selected_ = false;
  bool scanning_ = false;  // a SCAN has not been answered
  std::string run_id_;
  RecentNames recent_;

  // Names in the order of SCAN. Slots are numbered from the start of the scan, so that requests can refer to
  // them.
  std::deque<Slot> slots_;
  uint64_t first_slot_ = 0;
  uint64_t next_read_ = 0;   // the first slot whose value has not been asked for
  uint64_t unfinished_ = 0;  // slots that are not kDone
  uint64_t name_bytes_ = 0;  // of slots_
  uint64_t bytes_in_flight_ = 0;
  std::deque<PageEnd> page_ends_;
  uint64_t page_start_ = 0;       // number of the first slot of the page that is being returned
  std::deque<Request> requests_;  // without an answer, oldest first

  // Of the batch that is being filled.
  ScanPosition position_;
  bool moved_ = false;  // position_ has changed since the last batch
  uint64_t names_in_batch_ = 0;
  size_t page_start_entries_ = 0;
  uint64_t page_start_bytes_ = 0;
};

}  // namespace prm::source
