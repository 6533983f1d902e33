// All rows of a mapping, and then all keys of its pattern, are written to Redis.
#include "pg/background.h"
#include "reverse/reverse_feed.h"
#include "reverse/row_faults.h"
#include "source/cluster_walk.h"

namespace prm {

using pg::Spi;

namespace {

constexpr char kKeysAtOnce[] = "1000";
constexpr long kLookAgainMs = 200;

}  // namespace

// All rows, and then all keys of the pattern, whose rows may be gone. What changes meanwhile is noted again.
void ReverseFeed::SendAllRows(Fed &fed) {
  fed.outbox.BeginFull();
  Spi::Commit();
  for (RowName last;;) {
    std::vector<RowName> names;
    {
      pg::SnapshotScope snapshot;
      names = ReadReverseNames(fed.reverse, fed.limit, last);
    }
    Spi::Commit();
    SendNames(fed, {names.begin(), names.end()});
    if (last.empty()) break;
  }
  // Where queries may skip keys, some have never had rows.
  if (fed.reverse.mapping.no_row != "skip") RemoveKeysWithoutRows(fed);
  fed.outbox.EndFull();
  Spi::Commit();
}

void ReverseFeed::RemoveKeysWithoutRows(Fed &fed) {
  if (sender_->is_cluster()) return RemoveKeysOfCluster(fed);
  ServerConnection server(server_, GetUserId());
  pg::ValueOrThrow(server->Command({"SELECT", std::to_string(fed.reverse.db)}));
  RemoveKeysWithoutRows(fed, *server, ~redis::Slots());
}

// Node by node, until each slot was at one of them as long as that was scanned.
void ReverseFeed::RemoveKeysOfCluster(Fed &fed) {
  redis::Deployment deployment = ServerOptions(server_, GetUserId());
  Spi::Commit();
  deployment.read_from = redis::ReadFrom::kMaster;
  ClusterResources resources;
  source::ClusterWalk walk(deployment, resources.waiter);
  redis::Slots done;
  for (int64 until_ms = pg::MonotonicMs() + kMostMoveMs; !done.all();) {
    pg::ThrowIfError(walk.FindTopology());
    redis::Slots const imported = pg::ValueOrThrow(walk.ImportedSlots());
    auto const slots = walk.EnterNext(done, imported);
    if (!slots.ok()) {
      if (slots.error().code != ErrorCode::kUnavailable || pg::MonotonicMs() >= until_ms)
        pg::ThrowIfError(slots);
      pg::Sleep(kLookAgainMs);
      continue;
    }
    uint64_t const epoch = walk.epoch();
    RemoveKeysWithoutRows(fed, walk.connection(), slots.value());
    redis::Slots const stable = pg::ValueOrThrow(walk.StableSlots());
    size_t const before = done.count();
    if (walk.epoch() == epoch) done |= slots.value() & stable & ~pg::ValueOrThrow(walk.ImportedSlots());
    if (done.count() > before) until_ms = pg::MonotonicMs() + kMostMoveMs;
  }
}

// Of those keys of the pattern at a server that are in these slots.
void ReverseFeed::RemoveKeysWithoutRows(Fed &fed, redis::Connection &connection, const redis::Slots &slots) {
  const ReverseMapping &reverse = fed.reverse;
  auto const &types = reverse.mapping.types;
  std::string cursor = "0";
  do {
    redis::Reply const page = pg::ValueOrThrow(connection.Command(
        {"SCAN", cursor, "MATCH", reverse.pattern.Glob(), "COUNT", kKeysAtOnce}, redis::kLargeReply));
    auto const next = page.element(0).String();
    if (page.size() != 2 || !next || !page.element(1).IsArray())
      throw pg::Failure(connection.UnknownReply("SCAN"));
    cursor = *next;
    std::vector<RowName> found;
    for (size_t i = 0; i < page.element(1).size(); ++i) {
      auto const key = page.element(1).element(i).String();
      if (!key || (!slots.all() && !slots.test(redis::KeySlot(*key)))) continue;
      if (auto name = reverse.NameOf(*key)) found.push_back(std::move(*name));
    }
    std::set<RowName> names;
    if (types)
      for (const RowName &name : found) connection.Append({"TYPE", reverse.KeyOf(name)});
    for (RowName &name : found) {
      if (types) {  // a key of another type is not the mapping's
        redis::Reply const type = pg::ValueOrThrow(connection.Receive());
        if (type.IsError() && connection.ToError(type).code == ErrorCode::kMoved)
          continue;  // so did its slot
        auto const text = type.StatusText();
        if (!text) throw pg::Failure(connection.UnknownReply("TYPE"));
        if (std::find(types->begin(), types->end(), *text) == types->end()) continue;
      }
      names.insert(std::move(name));
    }
    if (names.empty()) continue;
    SendNoted(fed, AddMissing(reverse, names));
  } while (cursor != "0");
}

std::set<RowName> ReverseFeed::AddMissing(const ReverseMapping &reverse, const std::set<RowName> &names) {
  std::set<RowName> missing;
  ForRowsInOrder(
      names,
      [&](const std::set<RowName> &part) {
        int64 bytes = 0;
        std::map<RowName, ReverseValue> const values = ReadReverseRows(reverse, part, bytes);
        for (const RowName &name : part)
          if (values.count(name) == 0) missing.insert(name);
      },
      [](const RowName &, const pg::Problem &) {});  // it has a row
  std::set<std::string> const rejected = FindRejected(reverse, missing);
  redis::Slots const held = sender_->held();
  for (auto name = missing.begin(); name != missing.end();) {
    std::string const key = reverse.KeyOf(*name);
    if (rejected.count(key) > 0) {
      name = missing.erase(name);
      continue;
    }
    if (held.test(sender_->SlotOf(key)))
      held_.insert(*name);
    else
      pg::ThrowIfError(sender_->Add(reverse.db, key, {"list"}));
    ++name;
  }
  return missing;
}

}  // namespace prm
