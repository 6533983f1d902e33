#include "live/link_nodes.h"

#include "connect/outage.h"
#include "live/live_links.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

namespace {

constexpr int64 kAskEveryMs = 5000;
constexpr long kMostConnectMs = 1000;  // the stream waits meanwhile

}  // namespace

void LinkNodes::Refresh(std::vector<std::string> &nodes) {
  int64 const now_ms = pg::MonotonicMs();
  if (nodes.empty() || now_ms - asked_ms_ < kAskEveryMs) return;
  asked_ms_ = now_ms;
  try {
    if (connection_ == nullptr)
      connection_ = std::make_unique<ServerConnection>(server_, GetUserId(), nodes, kMostConnectMs);
    pg::Spi::Commit();
    if (!connection_->is_open()) return connection_.reset();
    const redis::ClusterNode &asked = connection_->node();
    bool const tls = connection_->deployment().connection.tls.mode != redis::TlsMode::kOff;
    auto const topology = pg::ValueOrThrow(redis::FetchTopology(**connection_, asked.endpoint, tls));
    if (const redis::ClusterShard *shard = topology.ShardOf(asked.id)) nodes = NodesOf(*shard);
  } catch (const pg::Failure &failure) {
    connection_.reset();
    if (!MayComeBack(failure.sqlstate())) throw;
  }
}

}  // namespace prm
