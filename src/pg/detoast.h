// Values that are compressed or out of line.
#pragma once

#include "pg/pg.h"

extern "C" {
#include "access/detoast.h"
}
