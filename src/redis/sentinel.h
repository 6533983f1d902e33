// Asks Redis Sentinel where a master and its replicas are.
#pragma once

#include <string>
#include <vector>

#include "redis/connection.h"
#include "redis/endpoint.h"

namespace prm::redis {

struct SentinelOptions {
  std::string master;               // its name in the configuration of the Sentinels
  std::vector<Endpoint> sentinels;  // asked in this order, until one answers
  ConnectionOptions connection;     // credentials, TLS and time limits; host and port are not used
};

// The address of the master according to the first Sentinel that knows it. Errors: kConnectionFailure, with
// each Sentinel's answer, if none does.
Result<Endpoint> FindMaster(const SentinelOptions& options, Waiter& waiter);

// Its replicas that the Sentinel does not consider down; may be empty. Errors: those of FindMaster.
Result<std::vector<Endpoint>> FindReplicas(const SentinelOptions& options, Waiter& waiter);

}  // namespace prm::redis
