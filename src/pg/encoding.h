// Conversion between text of Redis, in UTF-8, and text of the server, in the database's encoding.
#pragma once

#include "core/bytes.h"
#include "pg/guard.h"

namespace prm::pg {

// Text of Redis in the server's encoding; nullopt where the bytes are not UTF-8, or hold a zero byte or a
// character that the encoding lacks. In a database with SQL_ASCII, which has no encoding, it stays UTF-8. The
// result is a view of `utf8` or of `scratch`, whose bytes it may replace. Needs a transaction.
std::optional<Bytes> TextFromUtf8(Bytes utf8, std::string &scratch);

// Text of the server as Redis has it. Needs a transaction. Errors: 22P05 with `what`, the name of the text,
// and nothing of the text itself, which may be a secret.
std::string Utf8FromText(Bytes text, const std::string &what);

}  // namespace prm::pg
