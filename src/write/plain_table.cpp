#include "write/plain_table.h"

namespace prm {

bool IsPlainTable(Relation relation) {
  Form_pg_class form = relation->rd_rel;
  if (form->relkind != RELKIND_RELATION || form->relam != HEAP_TABLE_AM_OID || form->relispartition ||
      form->relhassubclass || form->relrowsecurity || IsSystemRelation(relation) ||
      relation->trigdesc != nullptr || relation->rd_rules != nullptr)
    return false;
  TupleConstr *constraints = relation->rd_att->constr;
  for (int i = 0; constraints != nullptr && i < constraints->num_check; ++i)
    if (contain_volatile_functions(static_cast<Node *>(stringToNode(constraints->check[i].ccbin))))
      return false;
  return true;
}

bool HasPlainIndexes(ResultRelInfo *table) {
  for (int i = 0; i < table->ri_NumIndices; ++i) {
    Form_pg_index form = table->ri_IndexRelationDescs[i]->rd_index;
    IndexInfo *info = table->ri_IndexRelationInfo[i];
    if (!form->indimmediate || form->indisexclusion || info->ii_Expressions != NIL ||
        info->ii_Predicate != NIL)
      return false;
  }
  return true;
}

bool MayUseColumns(Oid relation, const AttrNumber *columns, int count, AclMode mode) {
  // Extensions that audit or label see privileges being used through this hook.
  if (ExecutorCheckPerms_hook != nullptr || XactReadOnly) return false;
  if (pg_class_aclcheck(relation, GetUserId(), mode) == ACLCHECK_OK) return true;
  for (int i = 0; i < count; ++i)
    if (pg_attribute_aclcheck(relation, columns[i], GetUserId(), mode) != ACLCHECK_OK) return false;
  return true;
}

}  // namespace prm
