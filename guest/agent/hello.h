/* HELLO and its answer. */
#ifndef SLIPWAY_HELLO_H
#define SLIPWAY_HELLO_H

#include "buffer.h"
#include "frame.h"

#define AGENT_VERSION "0.1.0"
#define NONCE_SIZE_BYTES 16

enum hello_result { HELLO_MALFORMED, HELLO_NO_VERSION, HELLO_AGREED };

enum hello_result hello_answer(const struct frame *f, struct buffer *answer);
/* Remembers when a part of the boot was over; a fixed number of them. */
void hello_stage(const char *name);
/* A clone has not booted: what its template did is not its own. */
void hello_forget_stages(void);

#endif
