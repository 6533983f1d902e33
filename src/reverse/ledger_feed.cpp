// What the reverse feed does otherwise for mappings whose keys the ledger names. It changes nothing in the
// ledger. The entry of a row that is deleted here stays: if Redis loses what it was sent, a pass over all
// keys has to know that the key is to go; and a row that is inserted again with the same identity is that
// key's, whether its deletion was sent before or not. The next run that prunes strikes off what it does not
// meet.
#include "pg/transaction.h"
#include "reverse/ledger_names.h"
#include "reverse/reverse_feed.h"
#include "reverse/row_faults.h"

namespace prm {

using pg::Spi;

std::map<RowName, RowName> ReverseFeed::FindNames(const ReverseMapping &reverse,
                                                  const std::set<RowName> &noted) {
  std::map<RowName, RowName> texts, names;
  std::set<RowName> rows;
  for (const RowName &name : noted) {
    std::optional<RowName> const key = reverse.ledger ? reverse.ledger->FromNoted(name) : name;
    if (key)
      texts[name] = *key;
    else
      rows.insert(name);
  }
  // One whose texts are no values of the columns is of a trigger that is not ours.
  if (!rows.empty())
    ForRowsInOrder(
        rows, [&](const std::set<RowName> &part) { texts.merge(reverse.ledger->FindNames(reverse, part)); },
        [](const RowName &, const pg::Problem &) {});
  for (auto &[name, text] : texts)
    if (auto canonical = reverse.Canonical(std::move(text))) names[name] = std::move(*canonical);
  return names;
}

// All rows of the target, of which those without a name are counted; then the keys of the ledger, of which
// those are deleted that have no row any more. Other keys of the pattern never had one, and stay. Returns
// whether there is more.
bool ReverseFeed::SendLedgerPage(Fed &fed) {
  const ReverseMapping &reverse = fed.reverse;
  Pass &pass = *fed.pass;
  if (!pass.has_sent_rows) {
    std::vector<RowName> rows;
    {
      pg::SnapshotScope snapshot;
      rows = ReadRowColumns(reverse, fed.limit, pass.last);
    }
    Spi::Commit();
    std::map<RowName, RowName> const found = FindNames(reverse, {rows.begin(), rows.end()});
    if (found.size() < rows.size()) fed.outbox.NoteNameless(static_cast<int64>(rows.size() - found.size()));
    std::set<RowName> names;
    for (const auto &[row, name] : found) names.insert(name);
    Spi::Commit();
    SendNames(fed, std::move(names));
    pass.has_sent_rows = pass.last.empty();
    return true;
  }
  std::vector<RowName> names;
  {
    pg::SnapshotScope snapshot;
    names = ReadReverseNames(reverse, fed.limit, pass.last);
  }
  Spi::Commit();
  if (!names.empty()) SendNoted(fed, AddMissing(reverse, {names.begin(), names.end()}));
  return !pass.last.empty();
}

}  // namespace prm
