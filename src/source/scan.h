// Reads the keys of a server with SCAN, GETRANGE and DUMP, or values in pieces, at the pace of the caller and
// without state in Redis.
//
// A scan can read a share of the keys beside the other shares. A page goes over the end of its share. SCAN
// from there tells which of the page's names belong to the next share, and they are left to its reader.
//
// Every key that exists from the start of the scan to its end is returned. The name of a key that is created
// or deleted meanwhile may be returned. Repeated names are dropped: SCAN repeats names only when a table has
// shrunk, and then only names that it returned shortly before (redis 7.0 src/dict.c, comment on dictScan: a
// bucket of the smaller table holds exactly the buckets that were visited last), so knowing the most recent
// names is enough.
//
// Fields of hashes that have expired by the server's clock are left out, and a hash without a living field is
// kVanished. Without the right to TIME, expired fields are returned.
//
// Value and expiry belong together: the expiry is read before and after the value, and the key is read again
// if they differ. That needs no MULTI, so it also works through proxies that lack it. In a database without
// expiries, and as long as nothing is written, INFO before and after many values takes the place of that
// (scan_calm.cpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/recent_names.h"
#include "redis/connection.h"
#include "redis/info.h"
#include "source/cursor_share.h"
#include "source/name_share.h"
#include "source/rate_ceiling.h"
#include "source/scan_position.h"
#include "source/source.h"
#include "source/value_reader.h"

namespace prm::source {

// Names of a database that a page of SCAN has returned.
struct NamesPage {
  int db;
  std::string bytes;         // the names, one after another
  std::vector<size_t> ends;  // of each
  std::string cursor;        // of the page after it
};

// Names that an earlier scan has returned.
struct ListedNames {
  std::string run_id;            // of the server
  std::vector<NamesPage> pages;  // in the order of the scan, without those that have no names
};

struct ScanOptions {
  std::vector<int> databases;           // at least one
  CursorShare share;                    // of the keys of each, see HasCursorShares
  NameShare names;                      // of the keys of each; every reader walks all names
  const ListedNames* listed = nullptr;  // these are read instead, unless the position is not among them
  int readers = 1;                      // so many scans share the free memory of Redis
  size_t batch_keys = 5000;             // a batch has no more entries than this
  uint64_t batch_bytes = 8 << 20;       // nor more bytes, unless a single entry does
  uint64_t bytes_in_flight = 8 << 20;   // of values asked for and not yet received
  uint64_t max_reply_bytes = 16 << 20;  // larger values are read in pieces
  uint64_t batch_names = 100000;        // nor more names, wanted or not
  long scan_count = 1000;               // the highest COUNT of SCAN
  long max_rate = 0;                    // names per second; 0: no limit
  uint64_t max_value_bytes = uint64_t{512} << 20;  // larger values are kTooLarge
  MakeSpool make_spool;                            // for large collections; none: they are held in memory
  bool lets_proceed = false;                       // the caller calls Proceed
  // Called when the filter has seen the names of a page, with the cursor of the next one.
  std::function<void(const std::string& cursor)> end_page;
};

// Most keys of most databases are small strings, which GETRANGE reads at the lowest cost: the first bytes of
// a key of unknown type and size are asked for. A shorter reply is the value; an empty one may also mean that
// the key is gone. If most keys turn out to be other values, only a sample is read this way. All other keys
// are read in the general way:
//
// Sizes are asked before values, because unread replies count towards Redis' maxmemory. MEMORY USAGE is an
// estimate for collections. Where it is missing or forbidden, STRLEN tells the size of strings. What is
// larger than max_reply_bytes or of unknown size, and everything where DUMP is refused or answers in an
// unknown version or type, is read in pieces (ValueReader), with nothing else in flight. Where the commands
// for that are refused too, DUMP has to do.
//
// SCAN holds up every other client of Redis, so that a page comes in short steps. It has a connection of its
// own, as the answer to each step would otherwise wait behind the values that have been asked for. Behind a
// proxy that connection might lead to another server: there, and where a second one is refused, values and
// names share the connection, and a step is a page. A page has the same names however long its steps are:
// batches end where pages do, and rows are found fastest if the next run has the same batches.
//
// Values hold up other clients as well, so they are asked for in short turns (Connection::EndTurn). As a turn
// follows when one has been answered, Redis has work only as long as somebody looks: for a caller that does
// not call Proceed often enough, a step is a page and all values of a batch are asked for at once.
//
// If the server evicts keys when its memory is full, at most an eighth of the free memory is asked for at a
// time, whatever the options say.
class ScanSource : public Source {
 public:
  // Whether a server's keys can be read in shares of cursors; if not, in shares of names.
  static bool HasCursorShares(const redis::ServerInfo& info);

  // Prepares a scan of the databases in ascending order, from `position` (of an earlier Batch) or, if it is
  // empty, from the start. The connection must be used for nothing else while the source exists; its selected
  // database changes. Connection and filter must outlive the source. Errors: kInvalidArgument (options,
  // position, one of another share), kLowMemory (the server evicts keys, and even reading names could cause
  // that), those of Connection.
  static Result<std::unique_ptr<ScanSource>> Open(redis::Connection& connection, const ScanOptions& options,
                                                  KeyFilter& filter, const std::string& position);

  // A batch ends with a page of SCAN where its limits allow it. Its position is the end of the last page that
  // was returned completely; resuming from it repeats at most the entries of one page. Before Next returns,
  // it sends the requests for the next entries. After an error or an exception the source is unusable: open
  // another one from the stored position. Errors: those of Connection; an error reply for a single key
  // carries the key in its detail.
  Result<bool> Next(Batch& batch) override;

  // Takes what has arrived of values, up to bytes_in_flight, and SCAN goes on. Calls neither the filter nor
  // the waiter. Where there is no memory for it, Next throws std::bad_alloc, as it does itself.
  void Proceed() noexcept override;

  // Whether the scan began at the start because the position given to Open is not valid for this server.
  bool restarted() const { return restarted_; }

  // Whether names have a connection of their own.
  bool has_names_link() const { return names_link_ != nullptr; }

  // Names that were dropped, as SCAN returned them more than once or they belong to the next share.
  uint64_t duplicates() const { return duplicates_; }

 private:
  using Clock = std::chrono::steady_clock;

  // The bytes that GETRANGE asks for. Charged to bytes_in_flight, so that a longer piece leaves fewer keys
  // under way: with this one and the default 8 MB it is more than a batch.
  static constexpr uint64_t kProbeBytes = kShortStringLimit;

  // The number of batches of names in flight, see WorkAhead.
  static constexpr size_t kBatchesAhead = 4;

  // The number of batches whose values are asked for: the one that the caller needs next, and another one, so
  // that Redis has work until that has been returned.
  static constexpr size_t kValuesAhead = 2;

  // The size of the pieces of large values.
  static constexpr uint64_t kPieceBytes = uint64_t{1} << 20;

  enum class Stage {
    kNamed,   // nothing has been asked
    kSizing,  // GETRANGE, then the size
    kSized,
    kReading,
    kInPieces,  // to be read by ValueReader
    kUnproved,  // the next INFO shows whether its expiry belongs to it
    kDone
  };

  // How often the expiry of a key is read with its value.
  enum class ExpiryReads {
    kNone,  // it has none, if INFO proves it
    kOnce,  // after the value, and nothing has been written meanwhile, if INFO proves it
    kTwice
  };

  // The figures of INFO about the server and the database.
  struct Activity {
    bool has_expiries;
    int64_t expired_keys;                // since the server was started
    std::optional<std::string> written;  // the same as long as nothing is written; nullopt: it does not tell
  };

  // One name between SCAN and batch.
  struct Slot {
    Stage stage = Stage::kNamed;
    int reads = 0;      // times that it was read by DUMP
    uint64_t size = 0;  // as charged to bytes_in_flight_
    bool unknown_size = false;
    bool no_pieces = false;                  // a necessary command is refused
    bool needs_expiries = false;             // to be read with its expiry before and after
    ExpiryReads read = ExpiryReads::kTwice;  // kUnproved: how it was read
    Entry entry;
  };

  // The last page of a share, while SCAN tells which of its names belong to the next one.
  struct Edge {
    std::vector<std::string> names;
    std::unordered_set<std::string> beyond;
    std::string cursor;  // of the next SCAN
    uint64_t end;        // where the page ended, in the order of SCAN; 0: at the end of the table
  };

  // An answer to SCAN whose names have not been taken.
  struct Step {
    redis::Reply reply;
    uint64_t names;
    uint64_t bytes;  // of the names
    bool ends_page;
  };

  // The end of the entries of a page of SCAN, and the position once they have been returned.
  struct PageEnd {
    uint64_t end;  // number of the first slot after the page
    uint64_t names;
    ScanPosition position;
  };

  enum class Command { kSelect, kInfo, kScan, kGetrange, kMemoryUsage, kStrlen, kDump };

  struct Request {
    Command command;
    uint64_t slot;
    bool with_time = false;                          // kDump: TIME was sent as well
    ExpiryReads expiry_reads = ExpiryReads::kTwice;  // kGetrange, kDump
    bool begins = false;                             // kInfo: the first one in its database
  };

  // The answers to AskValue. An expiry that was read once is both; kNoExpiry where it was not asked.
  struct Reading {
    int64_t expiry_before;
    std::optional<int64_t> now_ms;  // the server's clock, if it was asked
    redis::Reply value;
    Status value_status;  // the error if the value is an error reply
    int64_t expiry_after;
  };

  ScanSource(redis::Connection& connection, const ScanOptions& options, KeyFilter& filter);

  Status Prepare(const std::string& position);
  Status FitHeadroom(const redis::ServerInfo& info);
  Status Fill(Batch& batch);
  Status WorkAhead();
  bool Collect(Batch& batch);
  bool PageEndsBatch(const Batch& batch, uint64_t names);
  void OpenNamesLink();
  bool HasNames();
  bool NamesHaveCome();
  void WalkAhead();
  long NamesOfPage() const;
  void AskNames(Bytes cursor);
  Step ToStep(redis::Reply reply);
  bool HoldsBatchOfNames() const;
  bool NamesAreDue() const;
  bool NamesGoFirst() const;
  void PlanNames();
  bool FindListedPage();
  void TakeListed();
  bool PlanDumps();
  void PlanGetranges();
  bool ShouldGetrange(const Slot& slot, uint64_t number) const;
  bool Reserve(uint64_t bytes);
  void AskSize(uint64_t slot);
  void AskValue(Command command, uint64_t slot);
  void EndTurnAfter(std::chrono::microseconds time);

  void AskInfo(bool begins);
  void AskInfoNowAndThen();
  Status AnswerInfo(const Request& request);
  std::optional<Activity> ActivityOf(const redis::ServerInfo& info) const;
  void ReadWithExpiries(uint64_t slot);
  void Settle(Slot& slot, const Request& request);

  Status Answer();
  Result<Step> ReceiveNames();
  Status AnswerScan();
  Status AnswerGetrange(const Request& request);
  Status AnswerSize(const Request& request);
  Status AnswerDump(const Request& request);
  void DropExpired(Slot& slot, int64_t now_ms);
  bool IsForPieces(const Slot& slot) const;
  Status ReadInPieces();
  Status ReadInPieces(const std::vector<uint64_t>& group);
  Status RefusePieces(uint64_t slot);
  void CountGetrange(bool settled);
  void SetSize(Slot& slot, uint64_t size);
  void SetValue(Slot& slot, Bytes payload, int64_t expiry);
  void Finish(Slot& slot);
  Result<Reading> ReceiveReading(const Request& request);
  Status CheckOrder(Bytes cursor) const;
  void BeginEdge(Bytes cursor, const redis::ReplyView& names);
  void LookBeyond(Bytes cursor, const redis::ReplyView& names);
  void EndShare();
  void EndPage(bool db_done);
  void TakeName(Bytes name, const Hash128& hash);

  static bool IsForValue(Command command) {
    return command == Command::kGetrange || command == Command::kDump;
  }
  Slot& At(uint64_t slot) { return slots_[slot - first_slot_]; }
  uint64_t end_slot() const { return first_slot_ + slots_.size(); }
  uint64_t EndOfValues() const;
  uint64_t MostReplyBytes() const;

  redis::Connection& connection_;
  ScanOptions options_;
  KeyFilter& filter_;
  std::optional<ExpiryReader> expiries_;
  std::optional<ValueReader> values_;
  std::optional<Error> dump_refused_;  // DUMP may not be used, as it answered for some key
  ServerAbilities server_;
  bool asks_time_ = false;  // TIME is sent with every DUMP, since a hash with expiring fields was met
  std::optional<unsigned> unknown_version_;
  bool has_memory_usage_ = true;
  bool has_getrange_ = true;
  bool few_strings_ = false;          // as the last sample says
  int sampled_ = 0;                   // keys of the sample that is being taken
  int settled_ = 0;                   // of them, keys that GETRANGE settled
  bool may_be_calm_ = false;          // INFO speaks for the keys that are read
  std::optional<Activity> activity_;  // the last answer of INFO; nullopt: it says too little
  int activity_db_ = 0;
  ExpiryReads expiry_reads_ = ExpiryReads::kTwice;
  int quiet_infos_ = 0;                      // so many answers since anything was written
  int needed_quiet_infos_ = 1;               // so many before expiries are read once
  uint64_t asked_since_info_ = 0;            // values
  std::vector<uint64_t> unproved_;           // slots that were asked since the last INFO and need the next
  std::deque<std::vector<uint64_t>> infos_;  // the same of each INFO without an answer
  bool restarted_ = false;
  uint64_t duplicates_ = 0;
  std::optional<Error> dead_;

  // The position of SCAN. db_index_ may be one past the end: then everything has been asked for.
  size_t db_index_ = 0;
  std::string cursor_ = "0";
  size_t listed_page_ = 0;  // the next of options_.listed
  bool selected_ = false;
  RateCeiling rate_;
  bool scanning_ = false;   // names have been asked for that have not been taken
  long asked_names_ = 0;    // the last COUNT
  uint64_t scanned_ = 0;    // names that came of the page that SCAN is in
  std::deque<Step> steps_;  // answers to SCAN whose names have not been taken, oldest first
  uint64_t names_in_steps_ = 0;
  uint64_t bytes_in_steps_ = 0;
  uint64_t taken_ = 0;  // names since the last end of a page
  std::unique_ptr<redis::Connection> names_link_;
  int looks_skipped_ = 0;                         // see HasNames
  std::chrono::microseconds turn_{0};             // what the commands since the last end of a turn take
  std::optional<Clock::time_point> returned_at_;  // when Next last did
  int proceeded_ = 0;                             // times since then
  int seldom_ = 0;                                // batches since it was called often enough
  bool has_short_turns_;                          // as Proceed is called often enough, so far
  bool lacked_memory_ = false;                    // in Proceed
  std::optional<Edge> edge_;
  std::string run_id_;
  RecentNames recent_;

  // Names in the order of SCAN. Slots are numbered from the start of the scan, so that requests can refer to
  // them.
  std::deque<Slot> slots_;
  uint64_t first_slot_ = 0;
  uint64_t next_named_ = 0;  // the first slot for which nothing has been sent
  uint64_t next_dump_ = 0;   // the first slot that may need a DUMP
  uint64_t unfinished_ = 0;  // slots that are not kDone
  uint64_t held_bytes_ = 0;  // of keys and payloads in slots_
  uint64_t bytes_in_flight_ = 0;
  std::deque<PageEnd> page_ends_;
  uint64_t page_start_ = 0;       // number of the first slot of the page that is being returned
  std::deque<Request> requests_;  // without an answer, oldest first
  size_t asked_before_ = 0;       // of them, those that the last WorkAhead left

  // The state of the batch that is being filled.
  ScanPosition position_;
  bool moved_ = false;  // position_ has changed since the last batch
  uint64_t names_in_batch_ = 0;
  size_t page_start_entries_ = 0;
  uint64_t page_start_bytes_ = 0;
};

}  // namespace prm::source
