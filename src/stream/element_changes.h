// Changes that commands of a replication stream make to single elements of a hash, set, sorted set, stream or
// list, if they carry the elements' whole new states. Facts: redis 7.0 src/t_hash.c, t_set.c, t_zset.c,
// t_stream.c, t_list.c; redis 8.0 and valkey 9.0 for HSETEX and HGETDEL.
//
// Conditions of HSETEX were true when the server sent the command; they are not looked at. A list's elements
// are identified by their positions: what comes or goes at its head moves all of them, and it is read again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rdb/value.h"
#include "redis/command_stream.h"

namespace prm::stream {

struct ElementState {
  std::string value;                     // of a field, or an element of a list
  double score = 0;                      // of a member of a sorted set
  std::optional<int64_t> expires_at_ms;  // of a field, Unix time
  std::vector<std::string> fields;       // of a stream's entry: names and values in turn
};

// Changes at the ends of a collection, whose elements the command does not name: KnownElements does.
struct EndChanges {
  // Of a stream's entries so many stay, and none that is older than this.
  std::optional<uint64_t> newest;
  std::optional<rdb::StreamId> from;
  // So many of a list's last elements go, and these values come behind the others.
  uint64_t popped = 0;
  std::vector<std::string> pushed;

  bool IsNeeded() const { return newest || from || popped > 0 || !pushed.empty(); }
};

struct ElementChanges {
  // The key's type; nothing: the command changes no element, but for instance when the key expires.
  std::optional<rdb::ValueType> type;
  // By field, member, or the name of an id or position, see below; nothing: the element is gone.
  std::map<std::string, std::optional<ElementState>> elements;
  EndChanges ends;
  // Bytes of names and states, about.
  size_t size = 0;

  bool HasGone() const;
  bool HasStates() const;
};

// The changes that a command makes to elements of the key that is its first argument; nothing: it does not
// say, or does something else, too.
std::optional<ElementChanges> ElementChangesOf(const redis::StreamCommand& command);

// Names that sort as the ids of a stream's entries, and the positions in a list, do.
std::string NameOfElement(const rdb::StreamId& id);
std::string NameOfElement(uint64_t position);
rdb::StreamId IdOfElement(const std::string& name);

// Adds later changes of the same key, whose ends are resolved. False: they are of another type, and what the
// key is now is not known.
bool Merge(ElementChanges&& later, ElementChanges& changes);

// The elements that have a state as the DUMP payload of a value with only them; or those that are gone, with
// states that mean nothing. There must be such. Of a list they are next to each other: FirstPosition tells
// where.
std::string EncodeStates(const ElementChanges& changes);
std::string EncodeGone(const ElementChanges& changes);
uint64_t FirstPosition(const ElementChanges& changes, bool of_gone);

}  // namespace prm::stream
