// The name of a mapping in the messages of its errors: what a run leaves behind has no detail.
#pragma once

#include "mapping/catalog.h"
#include "pg/error.h"
#include "pg/relation_trust.h"

namespace prm {

// "mapping "m": message", or the message if it has the name already.
inline std::string NamedMessage(const Mapping &mapping, const std::string &message) {
  std::string const name = "mapping \"" + mapping.name + "\"";
  return message.find(name) != std::string::npos ? message : name + ": " + message;
}

// Runs `body`, which works on one mapping. Errors of the server stay as they are: they may be tried again.
template <typename Body>
void NamingMapping(const Mapping &mapping, Body body) {
  try {
    body();
  } catch (const pg::UnconfirmedRelation &) {
    throw;
  } catch (const pg::Failure &error) {
    throw pg::Failure(error.sqlstate(), NamedMessage(mapping, error.message()), error.detail(), error.hint());
  } catch (pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) != pg::Fault::kServer)
      error.SetMessage(NamedMessage(mapping, error.what()));
    throw;
  }
}

}  // namespace prm
