/* Output streams: pipes or a terminal -> records -> spool -> DATA frames. */
#ifndef SLIPWAY_OUTPUT_H
#define SLIPWAY_OUTPUT_H

#include "buffer.h"
#include "frame.h"
#include "loop.h"

struct container;
struct output;

#define SOURCE_STDOUT 1
#define SOURCE_STDERR 2

/* A new stream with `memory_size` bytes of memory; NULL without memory or if `id` is in use. */
struct output *output_make(uint32_t id, struct container *c, size_t memory_size);
/* Takes over `fd` (made non-blocking here) and relays what can be read from it. */
bool output_add_source(struct output *o, int fd, uint8_t source);
/* Takes over `fd`, with room for `size` bytes. */
void output_set_spill(struct output *o, int fd, uint64_t size);
/* Nobody writes any more: relay what is there, then end, though a pipe may be held open. */
void output_finish(struct output *o);
/* No source will be added any more: the stream ends when those there are have closed. */
void output_seal(struct output *o);
/* Forgets a stream whose process never came to be. */
void output_discard(struct output *o);

/* The container goes: its streams stay until they are delivered. */
void outputs_orphan(struct container *c);
bool output_exists(uint32_t id);
void outputs_disconnected(void);
void outputs_describe(struct buffer *answer);
void output_acknowledge(const struct frame *f);
/* Writes the next DATA frame, of each stream in turn; 0 if there is nothing that may be sent. */
size_t outputs_next_frame(uint8_t *to);

#endif
