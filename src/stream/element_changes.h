// What commands of a replication stream do to single elements of a hash, set, sorted set or stream, if they
// carry the elements' whole new states. Facts: redis 7.0 src/t_hash.c, t_set.c, t_zset.c, t_stream.c; redis
// 8.0 and valkey 9.0 for HSETEX and HGETDEL.
//
// Conditions of HSETEX were true when the server sent the command; they are not looked at. Lists are read
// again: their commands say positions, not elements.
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
  std::string value;                     // of a field
  double score = 0;                      // of a member of a sorted set
  std::optional<int64_t> expires_at_ms;  // of a field, Unix time
  std::vector<std::string> fields;       // of a stream's entry: names and values in turn
};

struct ElementChanges {
  // Of the key; nothing: the command changes no element, but for instance when the key expires.
  std::optional<rdb::ValueType> type;
  // By field, member, or id as 16 bytes that sort as ids do; nothing: the element is gone.
  std::map<std::string, std::optional<ElementState>> elements;
  // Bytes of names and states, about.
  size_t size = 0;

  bool HasGone() const;
  bool HasStates() const;
};

// What a command does to elements of the key that is its first argument; nothing: it does not say, or does
// something else, too.
std::optional<ElementChanges> ElementChangesOf(const redis::StreamCommand& command);

// Adds later changes of the same key. False: they are of another type, and what the key is now is not known.
bool Merge(ElementChanges&& later, ElementChanges& changes);

// The elements that have a state as the DUMP payload of a value with only them; or those that are gone, with
// states that mean nothing. There must be such.
std::string EncodeStates(const ElementChanges& changes);
std::string EncodeGone(const ElementChanges& changes);

}  // namespace prm::stream
