// Writes rows that have changed here back to Redis.
#pragma once

#include "live/live_moment.h"
#include "reverse/outbox.h"
#include "reverse/reverse_sender.h"

namespace prm {

// The lock that who feeds a migration has.
LOCKTAG ReverseFeedLock(const std::string &migration);

// Tells this database of this server from its copies, as reverse_feed has it. Errors: those of
// pg::ThisInstance.
std::string FeedInstance();

// Once no family of a migration that is Redis' again is fed any more: what was on its way to Redis by then is
// there, or never comes. Commits. Errors: those of ReverseSender.
void EndBatches(const Migration &migration);

// Once the feed of a migration is not wanted any more: forgets what Redis has confirmed, and removes the keys
// from it that say so. Who starts the feed again notes a gap. The caller has the lock of the feed. Commits.
// Errors: those of ReverseSender; the keys stay then.
void ForgetBatches(const Migration &migration);

// Whether the server lacks batches that it has confirmed, or has those of another server, as after a
// fail-over: all rows of all mappings are to be written then. Commits. Whoever feeds may go on meanwhile, or
// fails with 40001 and is tried again; so may this. Errors: those of ReverseSender.
bool NoteLostBatches(const Migration &migration);
// As above, with a sender that has sent nothing yet.
bool NoteLostBatches(const std::string &migration, ReverseSender &sender);

// Changes of a table, quoted, are not noted, because somebody has disabled or dropped its triggers.
std::string NotNoted(const std::string &table);
// A detail of that.
extern const char *const kWhyNotNoted;

// The changes of a mapping are not noted, or not sent, any more.
class ReverseStopped : public pg::Failure {
 public:
  explicit ReverseStopped(const std::string &mapping)
      : Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the reverse feed of mapping \"" + mapping + "\" was stopped") {}
};

class ReverseFeed {
 public:
  // Feeds the mappings of a migration whose outboxes are installed. The caller has the lock of the feed.
  // Commits. Errors: 55000 if it was not started, those of FindReverses and ReverseSender.
  explicit ReverseFeed(const Migration &migration);

  // Sends a batch of what is noted by each mapping, and where all rows are needed, some more of them; settles
  // late deletions of keys whose rows are gone or have expired, before these may be renewed. Returns
  // how many changes are done, or more than none if such a pass goes on. Holds no transaction while it waits
  // for the server. Errors: those of ReverseSender, and ReverseStopped.
  int64 SendSome();

  // Why the changes of a mapping wait, if its reverse query cannot be run, or too many rows are rejected. It
  // is tried again after a while; other mappings go on. Or that changes of a table are not noted.
  const std::optional<pg::Problem> &problem() const { return problem_; }
  // In the latter case the pattern of the mapping, otherwise nothing.
  const std::optional<std::string> &UnwatchedPattern() const { return unwatched_pattern_; }

  // Whether the last SendSome has passed over changes that cannot be sent yet, and there are more behind
  // them.
  bool has_more() const { return has_more_; }

  // Whether a pass over all rows could not begin in the last SendSome, because transactions are open that may
  // have changed rows without noting them, or because live sync has not seen yet what Redis has.
  bool waits() const { return waits_; }
  // Whether it waits for live sync, and no process of this database has applied its changes for seconds: that
  // may never end. problem() tells it.
  bool is_unserved() const { return is_unserved_; }

  // Looks for what nobody tells: whether partitions or triggers have changed. Commits.
  void Look();

 private:
  // Over all rows. It goes on with each SendSome, so that other mappings have their turn.
  struct Pass {
    pg::LockHolders before;  // it waits for them
    int64 asked_ms = 0;
    int64 served_ms = 0;                            // when live sync was last seen to be under way
    std::optional<LiveMoment> seen = std::nullopt;  // for which it waits then
    bool may_begin = false;
    RowName last = {};           // the name of the last row, or a position in the ledger; empty: of none
    bool has_sent_rows = false;  // where the ledger names the keys; it then goes on with keys without rows
  };
  struct Scan;  // for keys without rows; likewise
  struct Fed {
    ReverseMapping reverse;
    Outbox outbox;
    int limit;                                          // changes of a batch
    std::optional<pg::Problem> problem = std::nullopt;  // why it waited last
    int64 held_until_ms = 0;
    std::set<RowName> rejected = {};  // rows that cannot be written back, as reverse_reject has them
    int64 retry_at_ms = 0;            // these
    std::optional<Pass> pass = std::nullopt;
    redis::Slots unscanned = {};  // of which a pass over all rows has yet to look for keys without rows
    std::shared_ptr<Scan> scan = nullptr;
    int64 scan_at_ms = 0;                            // them, once more
    std::optional<pg::Problem> open = std::nullopt;  // why they were left out
    std::string unwatched = {};                      // a table whose changes are not noted
  };
  // Changes of a batch.
  struct Done {
    std::vector<int64> ids = {};
    int64 sent = 0;
    int64 unfit = 0;
    int64 nameless = 0;               // changes of rows that the ledger, which names the keys, does not have
    int64 first_left = PG_INT64_MAX;  // for which there was no room, or whose slot is held
  };
  // Slots of a batch.
  struct Sent {
    redis::Slots done;
    redis::Slots unsure;  // of earlier batches that are not acknowledged
  };

  void SetProblem(std::optional<pg::Problem> problem,
                  std::optional<std::string> unwatched_pattern = std::nullopt);
  int64 SendSome(Fed &fed);
  void SettleDeletions();
  int64 SendOutbox(Fed &fed);
  int64 SendMoreRows(Fed &fed);
  bool MayBegin(Pass &pass);
  void SendNames(Fed &fed, std::set<RowName> names);
  bool SendPage(Fed &fed);
  bool SendLedgerPage(Fed &fed);
  int64 RemoveKeysWithoutRows(Fed &fed);
  bool ScanMore(Fed &fed, redis::Connection &connection, const redis::Slots &slots);
  void ScanServer(Fed &fed);
  void ScanCluster(Fed &fed);
  void NoteScanned(Fed &fed, const redis::Slots &slots);
  static void EndPass(Fed &fed);

  // Reads the rows with these names and adds their keys to the sender; notes those at fault in refused_.
  // Returns the names for which there was no room.
  std::set<RowName> AddKeys(Fed &fed, const std::set<RowName> &names);
  std::set<RowName> AddReadKeys(Fed &fed, const std::set<RowName> &names);
  // Adds those keys that have no row and that runs have not rejected. Returns their names.
  std::set<RowName> AddMissing(const ReverseMapping &reverse, const std::set<RowName> &names);
  std::set<RowName> FindRejected(const ReverseMapping &reverse, const std::set<RowName> &names);
  // The canonical names of what the outbox has, or of rows by their key columns.
  std::map<RowName, RowName> FindNames(const ReverseMapping &reverse, const std::set<RowName> &noted);
  void ForgetBatch();

  Sent Send(const ReverseMapping &reverse, const std::set<RowName> &names);
  void Settle(Fed &fed, const Sent &sent, const Done &done);
  void SendNoted(Fed &fed, const std::set<RowName> &names);
  redis::Slots CommitDurably(const ReverseMapping &reverse, const redis::Slots &slots);
  void NoteSlots(const redis::Slots &slots);
  void ReadRejected(Fed &fed);
  void StoreRejects(Fed &fed);

  std::string migration_, source_;
  std::vector<Fed> fed_;
  std::unique_ptr<ReverseSender> sender_;
  std::string server_;
  std::optional<pg::Problem> problem_;
  std::optional<std::string> unwatched_pattern_;
  bool has_more_ = false;
  bool waits_ = false;
  bool is_unserved_ = false;
  int64 batch_ = 0;
  // Late deletions: families of one mapping, and up to which they were looked at, and once more.
  std::vector<std::string> late_patterns_;
  int64 late_looked_ = 0, late_looked_ms_ = 0;
  int64 late_again_ = 0, late_again_next_ = 0, late_again_ms_ = 0;
  // The batch that is being made:
  std::set<RowName> untold_;   // rows that do not tell what their keys are
  std::set<RowName> unknown_;  // of these, such as the ledger does not have any more
  std::set<RowName> held_;     // whose slots take no transaction now
  std::set<RowName> written_;
  std::map<RowName, pg::Problem> refused_;
};

}  // namespace prm
