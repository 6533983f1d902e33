// A server with keys of every type, behind one that gives every command every kind of wrong answer.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>

#include "core/status.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_server.h"
#include "redis/deployment.h"

namespace prm::test {

// The address space of this process.
size_t AddressSpaceBytes();

class HostileFixture : public testing::Test {
 protected:
  HostileFixture();

  // Runs the work, which connects as deployment_ says, with each command that it uses answered by each wrong
  // answer: it ends soon, with or without an error, whose text is printable, and with no more memory than
  // replies may take. The server stands for a cluster of one node and for a Sentinel, too.
  void TryAll(const std::function<Status()>& work);

  RedisServer server_;
  PollWaiter waiter_;
  redis::Deployment deployment_;
};

}  // namespace prm::test
