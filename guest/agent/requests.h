/* Requests: putting fragments together, running each id once, answering repeated ids again. */
#ifndef SLIPWAY_REQUESTS_H
#define SLIPWAY_REQUESTS_H

#include "buffer.h"
#include "frame.h"

void requests_frame(const struct frame *f);
/* A half-received request is forgotten; those under way go on. */
void requests_disconnected(void);
/* Ends request `id`: error 0 and an optional `result` (fields), or an errno and a message for the
 * operator. Kept for a repeated id, sent if a host is there. */
void request_answer(uint64_t id, int error, const char *message, const struct buffer *result);

#endif
