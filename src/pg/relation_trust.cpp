#include "pg/relation_trust.h"

#include "pg/arguments.h"
#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm::pg {
namespace {

enum class Way { kOwner, kSchema, kTrigger, kCode };

// A role that can put SQL of its own into statements on a relation.
struct Influence {
  Oid role;  // InvalidOid: PUBLIC
  std::string role_name;
  Way way;
  std::string relation;
  std::string schema;
  std::string code;  // the function or type
};

// Those that could not act as $2 anyway, for relation $1; $3: whether $2 is a superuser. A role that grants
// TRIGGER on its own table, or uses functions of others there, has decided whose SQL runs in it. But by GRANT
// ALL or the like a superuser does not mean to make others superusers. Those that count: whoever owns it, its
// partitions and children, the partitioned tables above it, or what its views and rules name; whoever owns
// its schema, and so can drop it and make another; whoever may add triggers; whoever owns a function or type
// that statements on these relations use, and so can change what it does, or, by a cast, what becomes of its
// values; and whoever owns the function of a cast between these types and PostgreSQL's own, as statements
// turn values into text and json. A materialized view is refreshed with the rights of its owner, so the
// relations that its query names do not count. Of relations $4, functions $5 and types $6 that SQL uses their
// owners count, for a superuser.
constexpr char kInfluences[] = R"(
WITH RECURSIVE used (relid) AS (
    SELECT $1
    UNION
    SELECT next.relid FROM used CROSS JOIN LATERAL (
        SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = used.relid
        UNION ALL
        SELECT d.refobjid
        FROM pg_class AS v JOIN pg_rewrite AS r ON r.ev_class = v.oid
        JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
        WHERE v.oid = used.relid AND v.relkind <> 'm') AS next (relid)),
relation AS (
    SELECT c.* FROM pg_class AS c JOIN (SELECT relid FROM used UNION SELECT a.relid FROM pg_partition_ancestors($1) AS a (relid)) AS u
        ON u.relid = c.oid),
part (classid, objid, relid) AS (
    SELECT 'pg_class'::regclass, oid, oid FROM relation
    UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, c.oid FROM relation AS c JOIN pg_index AS i ON i.indrelid = c.oid
    UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, c.oid FROM relation AS c JOIN pg_attrdef AS d ON d.adrelid = c.oid
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, c.oid FROM relation AS c JOIN pg_constraint AS k ON k.conrelid = c.oid
    UNION ALL SELECT 'pg_trigger'::regclass, t.oid, c.oid FROM relation AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND NOT t.tgisinternal
    UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, c.oid FROM relation AS c JOIN pg_rewrite AS r ON r.ev_class = c.oid
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, c.oid FROM relation AS c JOIN pg_policy AS p ON p.polrelid = c.oid
    UNION ALL SELECT 'pg_proc'::regclass, f.oid, 0 FROM unnest($5) AS f (oid)),
type (oid, relid) AS (
    SELECT a.atttypid, c.oid
    FROM relation AS c
    CROSS JOIN LATERAL (SELECT atttypid FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped OFFSET 0) AS a
    WHERE $3
    UNION SELECT d.refobjid, p.relid
    FROM part AS p JOIN pg_depend AS d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_type'::regclass
    WHERE $3
    UNION SELECT t.oid, 0 FROM unnest($6) AS t (oid)
    UNION SELECT n.oid, known.relid
    FROM type AS known JOIN pg_type AS t ON t.oid = known.oid
    CROSS JOIN LATERAL (
        SELECT t.typbasetype
        UNION ALL SELECT t.typelem
        UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS n (oid)
    WHERE n.oid <> 0),
owned (oid, role, relid) AS (
    SELECT t.oid, t.typowner, type.relid FROM type JOIN pg_type AS t ON t.oid = type.oid AND t.typelem = 0),
used_part (classid, objid, relid) AS (
    SELECT classid, objid, relid FROM part
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, o.relid FROM owned AS o JOIN pg_constraint AS k ON k.contypid = o.oid),
code (role, classid, objid, relid) AS (
    SELECT role, 'pg_type'::regclass::oid, oid, relid FROM owned
    UNION SELECT f.proowner, 'pg_proc'::regclass, f.oid, o.relid
    FROM owned AS o JOIN pg_cast AS c ON o.oid IN (c.castsource, c.casttarget) AND c.castfunc >= 16384
    JOIN pg_proc AS f ON f.oid = c.castfunc
    WHERE (c.castsource < 16384 OR c.castsource IN (SELECT oid FROM type))
        AND (c.casttarget < 16384 OR c.casttarget IN (SELECT oid FROM type))
    UNION SELECT f.proowner, 'pg_proc'::regclass, f.oid, p.relid
    FROM used_part AS p
    JOIN pg_depend AS d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
    LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    JOIN pg_proc AS f ON f.oid = coalesce(o.oprcode, d.refobjid)
    WHERE $3
    UNION SELECT f.proowner, 'pg_proc'::regclass, f.oid, 0 FROM pg_proc AS f WHERE f.oid = ANY ($5)),
influence (role, way, relid, code) AS (
    SELECT relowner, 0, oid, '' FROM relation
    UNION SELECT relowner, 0, oid, '' FROM pg_class WHERE oid = ANY ($4)
    UNION SELECT n.nspowner, 1, c.oid, '' FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1
    UNION SELECT a.grantee, 2, c.oid, '' FROM relation AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
          WHERE $3 AND a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner
    UNION SELECT role, 3, relid, pg_describe_object(classid, objid, 0) FROM code WHERE NOT pg_has_role(role, $2, 'MEMBER')),
actual (role, way, relid, code) AS (
    SELECT CASE WHEN i.role = 'pg_database_owner'::regrole THEN d.datdba ELSE i.role END, i.way, i.relid, i.code
    FROM influence AS i JOIN pg_database AS d ON d.datname = current_database())
SELECT a.role, pg_get_userbyid(a.role)::text, a.way, c.oid::regclass::text, quote_ident(n.nspname), a.code
FROM actual AS a LEFT JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace) ON c.oid = a.relid
WHERE a.role = 0 OR NOT pg_has_role(a.role, $2, 'MEMBER')
ORDER BY a.way, a.role = 0, 2, 4, 6)";

// InvalidOid: of what is used alone.
std::vector<Influence> FindInfluences(Oid relation, Oid user, const UsedObjects &used = {}) {
  bool const is_superuser = Call([&] { return superuser_arg(user); });
  bool const is_view =
      OidIsValid(relation) && Call([&] { return get_rel_relkind(relation); }) == RELKIND_MATVIEW;
  std::vector<Influence> influences;
  AsExtensionOwner as_owner;
  auto rows =
      Spi::ExecuteKept(kInfluences, {SqlParam::OidOf(relation), SqlParam::OidOf(user),
                                     SqlParam::Bool(is_superuser), SqlParam::OidArray(used.relations),
                                     SqlParam::OidArray(used.functions), SqlParam::OidArray(used.types)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    Row row = rows[i];
    auto const way = static_cast<Way>(row.Int4(2));
    if (!is_superuser && is_view) continue;
    influences.push_back(
        {DatumGetObjectId(row.Value(0)), row.Text(1), way, row.Text(3), row.Text(4), row.Text(5)});
  }
  return influences;
}

std::string QuotedName(Oid role) {
  const char *name = Call([&] { return GetUserNameFromId(role, true); });
  return name == nullptr ? "role " + std::to_string(role) : "role \"" + std::string(name) + "\"";
}

std::string QuotedName(const Influence &influence) {
  return OidIsValid(influence.role) ? "role \"" + influence.role_name + "\"" : "any role";
}

// The first few, as sentences.
std::string Sentences(const std::vector<Influence> &influences) {
  constexpr size_t kMostNamed = 3;
  std::string text;
  for (size_t i = 0; i < std::min(influences.size(), kMostNamed); ++i) {
    const Influence &each = influences[i];
    std::string name = QuotedName(each);
    name[0] = pg_ascii_toupper(static_cast<unsigned char>(name[0]));
    text += (text.empty() ? "" : " ") + name;
    switch (each.way) {
      case Way::kOwner:
        text += " owns " + each.relation + ".";
        break;
      case Way::kSchema:
        text += " owns schema " + each.schema + " and can replace " + each.relation + ".";
        break;
      case Way::kTrigger:
        text += " may add triggers to " + each.relation + ".";
        break;
      case Way::kCode:
        text += " owns " + each.code + (each.relation.empty() ? "." : ", which " + each.relation + " uses.");
    }
  }
  if (influences.size() > kMostNamed)
    text += " There are " + std::to_string(influences.size() - kMostNamed) + " more.";
  return text;
}

Oid OwnerOf(Oid relation) {
  return Call([&] {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for relation %u", relation);
    Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return owner;
  });
}

bool IsTrusted(const AcceptedRelation &accepted, Oid role) {
  return std::any_of(accepted.trusted.begin(), accepted.trusted.end(),
                     [&](const Owner &trusted) { return trusted.Is(role); });
}

std::vector<Influence> FindStrangers(const AcceptedRelation &accepted, Oid user, const UsedObjects &used) {
  std::vector<Influence> strangers;
  for (Influence &each : FindInfluences(InvalidOid, user, used))
    if (!IsTrusted(accepted, each.role)) strangers.push_back(std::move(each));
  return strangers;
}

std::string GainedRights(const Influence &influence, Oid user) {
  return QuotedName(influence) + " can run SQL of its own with the rights of " + QuotedName(user);
}

[[noreturn]] void ThrowUnconfirmed(const std::vector<Influence> &strangers, Oid user,
                                   const std::string &subject, const std::string &hint) {
  throw UnconfirmedRelation(
      ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
      subject + " would run SQL of " + QuotedName(strangers[0]) + ", which nobody has confirmed",
      Sentences(strangers) + " It would run with the rights of " + QuotedName(user) + ".", hint);
}

std::string HintToConfirm(const std::string &confirm) { return "If that is intended: " + confirm; }

AcceptedRelation Accepted(Oid relation, const std::vector<Influence> &influences) {
  AcceptedRelation accepted;
  accepted.relation = relation;
  accepted.owner = Owner::Of(OwnerOf(relation));
  std::set<Oid> known;
  for (const Influence &each : influences)
    // The owner of the schema is not trusted with another relation than this one.
    if (each.way != Way::kSchema && known.insert(each.role).second)
      accepted.trusted.push_back(Owner::Of(each.role));
  return accepted;
}

}  // namespace

AcceptedRelation AcceptedRelation::FromText(Oid relation, Datum owner,
                                            const std::vector<std::string> &trusted) {
  AcceptedRelation accepted;
  accepted.relation = relation;
  accepted.owner = Owner(owner);
  for (const std::string &text : trusted) accepted.trusted.push_back(Owner::FromText(text));
  return accepted;
}

std::vector<std::string> AcceptedRelation::TrustedText() const {
  std::vector<std::string> texts;
  for (const Owner &role : trusted) texts.push_back(role.ToText());
  return texts;
}

AcceptedRelation AcceptRelation(Oid relation, const std::string &name, Oid user, bool is_confirmed) {
  std::vector<Influence> const influences = FindInfluences(relation, user);
  AcceptedRelation accepted = Accepted(relation, influences);
  accepted.is_confirmed = is_confirmed;
  if (influences.empty()) return accepted;
  bool const is_superuser = Call([&] { return superuser_arg(user); });
  std::string const message = GainedRights(influences[0], user);
  std::string const detail =
      Sentences(influences) + " " +
      (influences[0].way == Way::kCode ? "What " + name + " uses runs" : "Triggers of " + name + " run") +
      " with the rights of the role that writes to it.";
  std::string const other =
      OidIsValid(influences[0].role)
          ? "SET ROLE " + QuoteIdentifier(influences[0].role_name) + " before you define it"
          : "REVOKE TRIGGER ON " + influences[0].relation + " FROM PUBLIC";
  if (is_superuser && !is_confirmed)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, detail,
                  other + ", or confirm it with trust_target => true.");
  Report(WARNING, message, detail, is_superuser ? "" : other + ", or let one role own both.");
  return accepted;
}

void KeepTrusted(AcceptedRelation &accepted, const AcceptedRelation &before) {
  if (!before.owner.Is(accepted.owner.stored_role())) return;
  std::vector<std::string> const known = accepted.TrustedText();
  for (const Owner &role : before.trusted)
    if (std::find(known.begin(), known.end(), role.ToText()) == known.end()) accepted.trusted.push_back(role);
}

AcceptedRelation AcceptForNewOwner(Oid relation, Oid user) {
  bool const is_superuser = Call([&] { return superuser_arg(user); });
  return Accepted(relation, is_superuser ? std::vector<Influence>() : FindInfluences(relation, user));
}

void CheckCode(const AcceptedRelation &accepted, const UsedObjects &used, Oid user,
               const std::string &subject, const std::string &confirm) {
  if (accepted.is_confirmed || used.IsEmpty()) return;
  std::vector<Influence> const strangers = FindStrangers(accepted, user, used);
  if (!strangers.empty()) ThrowUnconfirmed(strangers, user, subject, HintToConfirm(confirm));
}

void TrustCode(AcceptedRelation &accepted, const UsedObjects &used, Oid user) {
  if (!accepted.is_confirmed || !Call([&] { return superuser_arg(user); })) return;
  std::vector<Influence> const strangers = FindStrangers(accepted, user, used);
  if (strangers.empty()) return;
  Report(WARNING, GainedRights(strangers[0], user), Sentences(strangers));
  for (const Influence &each : strangers)
    if (!IsTrusted(accepted, each.role)) accepted.trusted.push_back(Owner::Of(each.role));
}

std::optional<AcceptedRelation> CheckRelation(const AcceptedRelation &accepted, Oid relation, Oid user,
                                              const std::string &subject, const std::string &confirm) {
  std::string const hint = HintToConfirm(confirm);
  bool const is_same = accepted.owner.is_local() && accepted.relation == relation;
  Oid const owner = OwnerOf(relation);
  if (!is_same && !accepted.owner.Is(owner))
    throw UnconfirmedRelation(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, subject + " was replaced by one of another owner",
        "It belonged to role \"" + accepted.owner.name() + "\", and belongs to " + QuotedName(owner) +
            " now. Its triggers would run with the rights of " + QuotedName(user) + ".",
        hint);
  std::vector<Influence> strangers;
  for (Influence &each : FindInfluences(relation, user)) {
    if (each.way != Way::kSchema && !IsTrusted(accepted, each.role)) strangers.push_back(std::move(each));
  }
  if (!strangers.empty()) ThrowUnconfirmed(strangers, user, subject, hint);
  if (is_same && accepted.owner.Is(owner)) return std::nullopt;
  AcceptedRelation now = accepted;
  now.relation = relation;
  now.owner = Owner::Of(owner);
  return now;
}

}  // namespace prm::pg
