// Surveys the keys of a server without reading them: names by SCAN, the type, expiry, idle time and size of
// each key, and the first bytes of some values.
//
// The order of commands does not change the idle time of a key: OBJECT comes first, and TYPE, PTTL and MEMORY
// USAGE do not touch a key (redis 7.0 src/db.c, LOOKUP_NOTOUCH). Reading a value does, unless the server has
// CLIENT NO-TOUCH (7.2).
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
  std::string refusal;    // the first word of Redis' error reply about this key
};

struct SurveyPage {
  int db = 0;
  bool ends_db = false;  // there is nothing more in this database
  bool settled = false;  // of a cluster: the keys so far are not returned again after an error
  size_t names = 0;      // that SCAN returned, including repeated and ignored ones
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

  // Whether reading values leaves idle times unchanged.
  virtual bool no_touch() const = 0;
};

class ServerSurvey : public Survey {
 public:
  // Finds out which commands the user may run. The connection must be used for nothing else while the survey
  // exists; connection and curiosity must outlive it. Errors: those of Connection; SCAN itself must be
  // allowed.
  static Result<std::unique_ptr<ServerSurvey>> Open(redis::Connection& connection,
                                                    const SurveyOptions& options, Curiosity& curiosity);

  // Redis works on the next page while the caller processes this one. After an error the survey is unusable.
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
