/* SPDX-License-Identifier: MIT */
#pragma once

/* For decoders that are given more and more of their input. */

#include "core/attr.h"
#include "fuzz.h"

#define N_CUTS 4

/** fuzz_feed() - have an input decoded in pieces, until the decoder is done or all has been given
 * @cuts: N_CUTS bytes, by which the length of the pieces goes; NULL: as long as there is space
 * @decode: called after each piece; 0 when it needs more */
static inline int fuzz_feed(AttrReader *in, const uint8_t *data, size_t n, const uint8_t *cuts,
                            int (*decode)(AttrReader *in, void *userdata), void *userdata) {
        int r = 0;

        for (unsigned i = 0; r == 0 && n > 0; i++) {
                size_t size;
                char *space;

                r = attr_reader_space(in, &space, &size);
                if (r < 0)
                        return r;
                require(size > 0);
                if (size > n)
                        size = n;
                if (cuts && size > cuts[i % N_CUTS] + 1u)
                        size = cuts[i % N_CUTS] + 1u;
                memcpy(space, data, size);
                attr_reader_commit(in, size);
                data += size;
                n -= size;
                r = decode(in, userdata);
        }
        return r;
}
