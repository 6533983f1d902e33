// redis_migrate.reverse_elements: the value that a reverse query yields, as the elements of
// sink::WholeValue. SQL functions would cost more for each key than all the rest.
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/time.h"

namespace prm {
namespace {

// The functions up to Elements are plain C: they run inside a guard.

void Add(ArrayBuildState **elements, Datum value, bool is_null) {
  *elements = accumArrayResult(*elements, value, is_null, BYTEAOID, CurrentMemoryContext);
}

Datum BytesOf(const char *text, int size) { return PointerGetDatum(cstring_to_text_with_len(text, size)); }

// As ->> yields it. False: null.
bool TextOf(const JsonbValue *value, Datum *text) {
  const char *found = nullptr;
  switch (value->type) {
    case jbvNull:
      return false;
    case jbvString:
      *text = BytesOf(value->val.string.val, value->val.string.len);
      return true;
    case jbvNumeric:
      found = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
      break;
    case jbvBool:
      found = value->val.boolean ? "true" : "false";
      break;
    case jbvBinary:
      found = JsonbToCString(nullptr, value->val.binary.data, value->val.binary.len);
      break;
    default:
      ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unexpected value in jsonb")));
  }
  *text = BytesOf(found, static_cast<int>(strlen(found)));
  return true;
}

// A member of an object, or its absence as null.
void AddMember(ArrayBuildState **elements, JsonbContainer *object, const char *name) {
  JsonbValue found;
  Datum bytes = 0;
  bool const is_there =
      getKeyJsonValueFromContainer(object, name, static_cast<int>(strlen(name)), &found) != nullptr &&
      TextOf(&found, &bytes);
  Add(elements, bytes, !is_there);
}

// When a field expires, in Unix milliseconds, or null.
void AddExpiry(ArrayBuildState **elements, JsonbContainer *object) {
  JsonbValue found;
  Datum bytes = 0;
  if (getKeyJsonValueFromContainer(object, "expires_at", 10, &found) == nullptr || !TextOf(&found, &bytes)) {
    Add(elements, 0, true);
    return;
  }
  TimestampTz const at = DatumGetTimestampTz(
      DirectFunctionCall3(timestamptz_in, CStringGetDatum(text_to_cstring(DatumGetTextPP(bytes))),
                          ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
  if (TIMESTAMP_IS_NOEND(at)) {
    Add(elements, 0, true);
    return;
  }
  char number[MAXINT8LEN + 1];
  int const size = pg_lltoa(TIMESTAMP_IS_NOBEGIN(at) ? 1 : pg::UnixMs(at), number);
  Add(elements, BytesOf(number, size), false);
}

Datum JsonElements(Datum type, Jsonb *json, bool *is_null) {
  auto is_type = [&](const char *name) {
    text *given = DatumGetTextPP(type);
    return VARSIZE_ANY_EXHDR(given) == strlen(name) && memcmp(VARDATA_ANY(given), name, strlen(name)) == 0;
  };
  ArrayBuildState *elements = nullptr;
  JsonbIterator *iterator = JsonbIteratorInit(&json->root);
  JsonbValue value;
  bool const is_scalar = JB_ROOT_IS_SCALAR(json), is_object = JB_ROOT_IS_OBJECT(json);
  bool const is_string = is_type("string"), is_zset = is_type("zset"), is_hash = is_type("hash");
  if (is_string && !is_scalar) {
    char *whole = JsonbToCString(nullptr, &json->root, VARSIZE(json));
    Add(&elements, BytesOf(whole, static_cast<int>(strlen(whole))), false);
    return makeArrayResult(elements, CurrentMemoryContext);
  }
  // A hash whose fields may expire is NULL, and then field, value and expiry of each.
  bool const has_expiries = is_hash && !is_object && !is_scalar;
  if (has_expiries && JB_ROOT_COUNT(json) > 0) Add(&elements, 0, true);
  for (JsonbIteratorToken token; (token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE;) {
    Datum bytes = 0;
    if (token == WJB_KEY) {
      Datum const field = BytesOf(value.val.string.val, value.val.string.len);
      (void)JsonbIteratorNext(&iterator, &value, true);
      if (!TextOf(&value, &bytes)) continue;
      Add(&elements, field, false);
      Add(&elements, bytes, false);
    } else if (token == WJB_ELEM && is_scalar) {
      if (!TextOf(&value, &bytes)) continue;  // null: no key
      if (!is_string)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("a value of a reverse query is a scalar, which no collection is")));
      Add(&elements, bytes, false);
    } else if (token == WJB_ELEM && (is_zset || has_expiries)) {
      if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("an element of a value of a reverse query is no object")));
      AddMember(&elements, value.val.binary.data, is_zset ? "member" : "field");
      AddMember(&elements, value.val.binary.data, is_zset ? "score" : "value");
      if (has_expiries) AddExpiry(&elements, value.val.binary.data);
    } else if (token == WJB_ELEM) {
      bool const is_there = TextOf(&value, &bytes);
      Add(&elements, bytes, !is_there);
    }
  }
  *is_null = elements == nullptr;
  return *is_null ? 0 : makeArrayResult(elements, CurrentMemoryContext);
}

// The elements of a value that is the string itself.
Datum OneElement(Datum value) {
  return PointerGetDatum(construct_array(&value, 1, BYTEAOID, -1, false, TYPALIGN_INT));
}

Datum Elements(FunctionCallInfo fcinfo, Datum type, Jsonb *json) {
  bool is_null = false;
  Datum const elements = pg::Call([&] { return JsonElements(type, json, &is_null); });
  fcinfo->isnull = is_null;
  return elements;
}

Datum NoElements(FunctionCallInfo fcinfo) {
  fcinfo->isnull = true;
  return 0;
}

}  // namespace
}  // namespace prm

// redis_migrate.reverse_elements(type text, value bytea | text | jsonb): see the SQL comments. NULL for a
// value that is NULL or empty. Errors: 22023, and 22P02 for text that is no JSON, where the type does not
// fit.
PRM_FUNCTION(reverse_elements_bytea) {
  using namespace prm;
  if (PG_ARGISNULL(1)) return NoElements(fcinfo);
  Datum const value = PG_GETARG_DATUM(1);
  return pg::Call([&] { return OneElement(PointerGetDatum(DatumGetByteaPP(value))); });
}

PRM_FUNCTION(reverse_elements_jsonb) {
  using namespace prm;
  if (PG_ARGISNULL(1)) return NoElements(fcinfo);
  Datum const type = PG_ARGISNULL(0) ? pg::TextDatum("") : PG_GETARG_DATUM(0);
  Datum const value = PG_GETARG_DATUM(1);
  return Elements(fcinfo, type, pg::Call([&] { return DatumGetJsonbP(value); }));
}

// The database is in UTF8.
PRM_FUNCTION(reverse_elements_text) {
  using namespace prm;
  if (PG_ARGISNULL(1)) return NoElements(fcinfo);
  Datum const type = PG_ARGISNULL(0) ? pg::TextDatum("") : PG_GETARG_DATUM(0);
  Datum const value = PG_GETARG_DATUM(1);
  Bytes const name = pg::DatumBytes(type);
  if (name == "string" || name.empty())
    return pg::Call([&] { return OneElement(PointerGetDatum(DatumGetTextPP(value))); });
  return Elements(fcinfo, type, pg::Call([&] {
                    Datum const json = DirectFunctionCall1(
                        jsonb_in, CStringGetDatum(text_to_cstring(DatumGetTextPP(value))));
                    return DatumGetJsonbP(json);
                  }));
}
