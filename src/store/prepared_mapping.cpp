#include "store/prepared_mapping.h"

#include "pg/spi.h"

namespace prm {

using pg::Spi;

PreparedMapping::PreparedMapping(MappingState &s)
    : state(s),
      mapping(*s.mapping),
      target(LoadTarget(mapping)),
      query(mapping, s.shape, target),
      writer(mapping, target, query.facts().columns) {
  if (mapping.ledger == "full") ledger.emplace(mapping, target);
  if (mapping.ledger == "packed") packed.emplace(mapping, s.shape, target, query);
  if (!s.target_seen) {
    s.target_seen = true;
    s.expects_new_rows = target.kind == TargetKind::kLocal &&
                         !Spi::Execute("SELECT EXISTS (SELECT FROM " + target.name + ")")[0].Bool(0);
  }
  writer.set_expects_new_rows(s.expects_new_rows);
  writer.set_inserts_in_bulk(s.inserts_in_bulk);
}

}  // namespace prm
