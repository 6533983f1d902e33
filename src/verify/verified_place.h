// The place from which a verification reads.
#pragma once

#include "store/archive_source.h"

namespace prm {

// As what a verification waits for Redis.
inline Outage VerificationOutage() {
  return Outage("verification", "A verification keeps no position: begin another when Redis is back.");
}

// source: as verify's argument.
inline SourcePlace PlaceToVerify(const Migration &migration, const std::string &source) {
  SourcePlace place = PlaceOf(migration, source);
  place.outage = VerificationOutage();
  return place;
}

}  // namespace prm
