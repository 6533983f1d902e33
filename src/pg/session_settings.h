// The settings of a session, for another process that is to work as the session does.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// All settings that sessions can have of their own, custom ones included, with their values in this session:
// a text for AdoptSettings. Left out are those that the current user may not set, and those of the connection
// itself: roles, the transaction, the client's encoding. May hold secrets.
std::string SessionSettings();

// Why a process that connects as the current user cannot have the settings of this session; nothing if it
// can. Needs SPI.
std::optional<std::string> ReasonNotToAdoptSettings();

// Gives this session those of another one, with the rights of the current user. Needs a transaction, with
// whose commit they stay. Errors: 55000 when this session cannot have them; no message has a value.
void AdoptSettings(const std::string &settings);

}  // namespace prm::pg
