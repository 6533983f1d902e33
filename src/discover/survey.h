// Looks at the keys of a server without reading them: names by SCAN, and of each key type, expiry, idle time
// and size, and the first bytes of some values.
//
// The questions about a key go in the order that leaves its idle time alone: OBJECT comes first, and none of
// TYPE, PTTL and MEMORY USAGE touches a key (redis 7.0 src/db.c, LOOKUP_NOTOUCH). Reading a value does,
// unless the server knows CLIENT NO-TOUCH (7.2).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/recent_names.h"
#include "discover/family_stats.h"
#include "redis/connection.h"

namespace prm {

// How much is asked about a key; kIgnore: it is not even returned.
enum class Question { kIgnore, kName, kFacts, kFactsAndValue };

class Curiosity {
 public:
  virtual ~Curiosity() = default;
  virtual Question Ask(int db, Bytes key) = 0;
};

struct SurveyedKey {
  std::string name;
  Question question = Question::kName;
  KeyFacts facts;
  bool vanished = false;  // gone before it was asked about
  std::string refusal;    // the first word of Redis' error, when it refused to answer about this key
};

struct SurveyPage {
  int db = 0;
  bool ends_db = false;  // there is nothing more in this database
  bool settled = false;  // of a cluster: nothing that was returned so far is returned again after an error
  size_t names = 0;      // that SCAN returned, repeated and ignored ones too
  std::vector<SurveyedKey> keys;
};

struct SurveyOptions {
  std::vector<int> databases;  // at least one
  long scan_count = 1000;      // COUNT of SCAN
};

class Survey {
 public:
  virtual ~Survey() = default;

  // The next page of keys; false at the end.
  virtual Result<bool> Next(SurveyPage& page) = 0;

  // Commands that the user may not run, or the server does not know.
  virtual std::vector<std::string> missing() const = 0;

  // Whether reading values left idle times alone.
  virtual bool no_touch() const = 0;
};

class ServerSurvey : public Survey {
 public:
  // Finds out what the user may ask. The connection must be used for nothing else until the survey is gone;
  // connection and curiosity must outlive it. Errors: those of Connection; SCAN itself must be allowed.
  static Result<std::unique_ptr<ServerSurvey>> Open(redis::Connection& connection,
                                                    const SurveyOptions& options, Curiosity& curiosity);

  // While the caller deals with a page, Redis answers about the next one. After an error the survey is dead.
  // Errors: those of Connection.
  Result<bool> Next(SurveyPage& page) override;
  std::vector<std::string> missing() const override { return missing_; }
  bool no_touch() const override { return no_touch_; }

 private:
  ServerSurvey(redis::Connection& connection, const SurveyOptions& options, Curiosity& curiosity);

  Status Prepare();
  Result<bool> MayUse(std::initializer_list<Bytes> command, const char* name);
  Status AskNames();
  Status ReceiveNames();
  void AskFacts();
  Status ReceiveFacts(SurveyedKey& key);
  bool AskValue(const SurveyedKey& key);
  Status ReceiveValue(SurveyedKey& key);
  Result<redis::Reply> ReceiveFor(SurveyedKey& key);

  redis::Connection& connection_;
  const SurveyOptions options_;
  Curiosity& curiosity_;
  std::vector<std::string> missing_;
  bool has_type_ = false;
  bool has_pttl_ = false;
  bool has_memory_usage_ = false;
  bool has_object_ = false;
  bool by_frequency_ = false;  // the eviction policy is one of LFU: OBJECT FREQ instead of IDLETIME
  bool no_touch_ = false;
  std::vector<std::string> unreadable_types_;
  RecentNames recent_;
  size_t db_index_ = 0;
  std::string cursor_ = "0";
  long count_ = 0;        // COUNT of the next SCAN
  bool started_ = false;  // the database has been selected
  bool ahead_ = false;    // next_ has been asked about
  SurveyPage next_;
};

}  // namespace prm
