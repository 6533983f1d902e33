// Live sync beside a verification: whether it is under way, and how far it has come.
#pragma once

#include "pg/spi.h"
#include "verify/key_reader.h"

namespace prm {

// All functions need SPI and commit.
class LiveBeside {
 public:
  // reader: tells where the server is. It must outlive this.
  LiveBeside(std::string migration, KeyReader &reader) : migration_(std::move(migration)), reader_(reader) {}

  // Whether live sync is under way.
  bool IsFollowed() const;
  // Whether all its links bring what is written. A feed proves that only when it is settled.
  bool IsFollowing() const;
  // Whether the live run learns of changes by a feed, which has no points.
  bool IsFeed() const;
  // Waits until all that Redis has now has been applied, of a cluster by all its masters. False: it was not
  // in time, or nobody knows. Errors: those of KeyReader::FetchPoints.
  bool WaitForAll();
  // Likewise, until the stream has been applied up to a point.
  bool WaitForStream(const redis::ReplicationPoint &point) const;
  // Those of the keys whose rows wait although the stream has been applied: large values that change often.
  std::set<KeyId> Deferred(const std::vector<KeyId> &keys) const;

 private:
  static bool WaitUntil(const std::string &question, std::initializer_list<pg::SqlParam> parameters);
  bool WaitForFeed() const;

  std::string migration_;
  KeyReader &reader_;
};

}  // namespace prm
