// LZF, the compression that Redis applies to strings and blobs of more than 20 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"

namespace prm::rdb {

// Replaces `output` by the `size` bytes that `compressed` expands to. Memory is not allocated for a size that
// these bytes cannot reach (at most 88 times their number) or that is above 1 GiB, the most that a Redis blob
// or a PostgreSQL value can have. `place` is the offset of `compressed`, for error messages. kCorruptData,
// with both offsets, when the bytes do not expand to exactly `size`; kTooLarge. Format: LibLZF 3.6 lzf_d.c,
// as in redis src/lzf_d.c.
Status LzfDecompress(Bytes compressed, uint64_t size, std::string& output, uint64_t place = 0,
                     Interrupts* interrupts = nullptr);

}  // namespace prm::rdb
