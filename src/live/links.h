// The links of a live run and what is known of them: one to the server, or to each master of a cluster.
#pragma once

#include "live/link_watch.h"

namespace prm {

struct Links {
  void Open(std::vector<LiveRecord> of_run) {
    records = std::move(of_run);
    for (const LiveRecord &record : records) watches.push_back(std::make_unique<LinkWatch>(record));
  }
  void SetShare(const stream::KeyShare &share) {
    for (LiveRecord &record : records) record.set_share(share);
  }
  void Look() {
    for (const auto &watch : watches) watch->Look();
  }
  void Stop() {
    for (const auto &watch : watches) watch->Stop();
  }

  std::vector<LiveRecord> records;
  std::vector<std::unique_ptr<LinkWatch>> watches;
};

}  // namespace prm
