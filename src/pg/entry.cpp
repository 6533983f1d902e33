#include "pg/entry.h"

#include <cstdio>
#include <cstring>
#include <new>

#include "pg/guard.h"

namespace prm::pg {
namespace {

MemoryContext entry_context = nullptr;

// The content of an exception after its C++ objects are destroyed. Fixed buffers need no destructor, and no
// allocation when memory is short.
struct Caught {
  ErrorData *data = nullptr;
  int sqlstate = 0;
  char message[2048];
  char detail[4096];
  char hint[2048];
};

void Copy(const std::string &from, char *to, size_t size) {
  size_t length = std::min(from.size(), size - 1);
  memcpy(to, from.data(), length);
  to[length] = '\0';
}

[[noreturn]] void Raise(Caught *caught) {
  if (caught->data != nullptr) ReThrowError(caught->data);
  // A cut must not fall inside a character: the message goes through encoding conversion.
  for (char *text : {caught->message, caught->detail, caught->hint}) {
    int length = static_cast<int>(strlen(text));
    text[pg_mbcliplen(text, length, length)] = '\0';
  }
  ereport(ERROR, (errcode(caught->sqlstate), errmsg_internal("%s", caught->message),
                  caught->detail[0] ? errdetail_internal("%s", caught->detail) : 0,
                  caught->hint[0] ? errhint("%s", caught->hint) : 0));
  pg_unreachable();
}

// Runs `body` and reports whether it threw, with the exception's content in *caught.
template <typename Body>
bool Catch(Body body, Caught *caught) {
  caught->message[0] = caught->detail[0] = caught->hint[0] = '\0';
  try {
    body();
    return false;
  } catch (PgError &error) {
    caught->data = error.Release();
  } catch (const Failure &failure) {
    caught->sqlstate = failure.sqlstate();
    Copy(failure.message(), caught->message, sizeof caught->message);
    Copy(failure.detail(), caught->detail, sizeof caught->detail);
    Copy(failure.hint(), caught->hint, sizeof caught->hint);
  } catch (const std::bad_alloc &) {
    caught->sqlstate = ERRCODE_OUT_OF_MEMORY;
    strcpy(caught->message, "out of memory");
  } catch (const std::exception &error) {
    caught->sqlstate = ERRCODE_INTERNAL_ERROR;
    snprintf(caught->message, sizeof caught->message, "unexpected C++ exception: %s", error.what());
  } catch (...) {
    caught->sqlstate = ERRCODE_INTERNAL_ERROR;
    strcpy(caught->message, "unexpected C++ exception of unknown type");
  }
  return true;
}

template <typename Body>
void Barrier(Body body) {
  sigjmp_buf *const stack_at_entry = PG_exception_stack;
  MemoryContext const outer_home = entry_context;
  entry_context = CurrentMemoryContext;
  Caught caught;
  bool failed = Catch(body, &caught);
  entry_context = outer_home;
  if (PG_exception_stack != stack_at_entry) {
    PG_exception_stack = stack_at_entry;
    Assert(false);
    ereport(WARNING, (errmsg_internal("pg_redis_migrate: exception stack was not restored")));
  }
  if (failed) Raise(&caught);
}

}  // namespace

MemoryContext EntryContext() { return entry_context != nullptr ? entry_context : CurrentMemoryContext; }

Datum Enter(Datum (*body)(FunctionCallInfo), FunctionCallInfo fcinfo) noexcept {
  Datum result = 0;
  Barrier([&] { result = body(fcinfo); });
  return result;
}

void Enter(void (*body)()) noexcept { Barrier(body); }

// Copies the pending error; nullptr when memory is short. Copying needs its own jump buffer: an error in it
// would otherwise jump to an outer one, past the C++ frames in between.
static ErrorData *CopyPending() {
  sigjmp_buf *const saved_stack = PG_exception_stack;
  ErrorContextCallback *const saved_callbacks = error_context_stack;
  MemoryContext const saved_context = CurrentMemoryContext;
  ErrorData *volatile data = nullptr;
  volatile MemoryContext context = nullptr;
  sigjmp_buf here;
  error_context_stack = nullptr;
  if (sigsetjmp(here, 0) == 0) {
    PG_exception_stack = &here;
    context = AllocSetContextCreate(EntryContext(), "redis_migrate error", ALLOCSET_SMALL_SIZES);
    MemoryContextSwitchTo(context);
    data = CopyErrorData();
  }
  PG_exception_stack = saved_stack;
  error_context_stack = saved_callbacks;
  MemoryContextSwitchTo(saved_context);
  if (data == nullptr && context != nullptr) MemoryContextDelete(context);
  FlushErrorState();
  return data;
}

void ThrowPending() {
  ErrorData *const data = CopyPending();
  if (data == nullptr) throw std::bad_alloc();
  throw PgError(data);
}

}  // namespace prm::pg
