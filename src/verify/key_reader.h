// Reads keys of a migration's server again, by name.
#pragma once

#include "connect/source_division.h"
#include "core/key_id.h"
#include "mapping/catalog.h"
#include "source/named_keys.h"
#include "source/rate_ceiling.h"
#include "source/source.h"
#include "verify/key_watch.h"

namespace prm {

class KeyReader {
 public:
  // Gets entries as they are read, and the point of the replication stream that they show; nothing: unknown.
  using Visit =
      std::function<void(std::vector<source::Entry> &, const std::optional<redis::ReplicationPoint> &)>;

  // filter: routes keys. The migration has a server. Both must outlive it.
  KeyReader(const Migration &migration, source::KeyFilter &filter)
      : migration_(migration), filter_(filter), watch_(migration_.server) {}

  // From now on keys are of a part of the source that begins at this position, which other processes read the
  // other parts of; or, as at first, of all of it.
  void SetPart(const std::optional<SourcePart> &part, const std::string &position);

  // Reads the keys and hands all of them to `visit`, in parts; what is gone is kVanished. Keeps to the
  // ceiling of the server. A server that does not tell the point of its stream, and a cluster, is scanned for
  // them. watched_at_once: the keys of a part, which are watched from before they are read; 0: none are.
  // Holds no transaction while it waits: the caller has committed, and visit commits. Errors: those of
  // ServerConnection, NamedKeys and SourceReader, after pg_redis_migrate.reconnect_timeout.
  void Read(const std::vector<KeyId> &keys, size_t watched_at_once, const Visit &visit);

  // Within a visit, once: whether all keys of the part are now what they were when they were read, and have
  // been all the while. Nothing: they are not watched.
  std::optional<bool> HeldStill();

  // Where the stream of the server is now, or those of a cluster's masters; none where one does not tell. The
  // same errors, but at once.
  std::vector<redis::ReplicationPoint> FetchPoints();

 private:
  void ReadByName(const std::vector<KeyId> &keys, size_t watched_at_once, const Visit &visit);
  void Scan(const std::vector<KeyId> &keys, const Visit &visit);
  // False: the server does not let itself be read by name.
  bool Open();
  std::vector<redis::ReplicationPoint> FetchPointsOfCluster(const redis::Deployment &deployment);

  const Migration &migration_;
  source::KeyFilter &filter_;
  std::unique_ptr<ServerConnection> connection_;
  std::unique_ptr<source::NamedKeys> named_;
  std::optional<source::RateCeiling> rate_;
  std::optional<SourcePart> part_;
  std::string begin_;  // of the part
  bool scans_ = false;
  KeyWatch watch_;
  bool is_watched_ = false;  // what is being visited
};

}  // namespace prm
