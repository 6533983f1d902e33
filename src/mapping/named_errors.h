// The name of a mapping in the messages of its errors: what a run leaves behind has no detail.
#pragma once

#include "mapping/catalog.h"
#include "pg/error.h"
#include "pg/relation_trust.h"

namespace prm {

// Throws an error of a mapping again, with the mapping's name in the message.
[[noreturn]] inline void ThrowNamed(const Mapping &mapping, const pg::Failure &error) {
  std::string const name = "mapping \"" + mapping.name + "\"";
  bool const is_named = error.message().find(name) != std::string::npos;
  throw pg::Failure(error.sqlstate(), is_named ? error.message() : name + ": " + error.message(),
                    error.detail(), error.hint());
}

// Runs `body`, which works on one mapping. Errors of the server stay as they are: they may be tried again.
template <typename Body>
void NamingMapping(const Mapping &mapping, Body body) {
  try {
    body();
  } catch (const pg::UnconfirmedRelation &) {
    throw;
  } catch (const pg::Failure &error) {
    ThrowNamed(mapping, error);
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    const ErrorData *data = error.data();
    ThrowNamed(mapping,
               pg::Failure(error.sqlstate(), error.what(), data->detail != nullptr ? data->detail : "",
                           data->hint != nullptr ? data->hint : ""));
  }
}

}  // namespace prm
