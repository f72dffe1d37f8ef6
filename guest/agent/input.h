/* Input streams: DATA frames -> a small buffer -> a process's stdin. */
#ifndef SLIPWAY_INPUT_H
#define SLIPWAY_INPUT_H

#include "buffer.h"
#include "frame.h"

struct input;

/* Takes over `fd` (made non-blocking here); NULL without memory or if `id` is in use. */
struct input *input_make(uint32_t id);
bool input_set_target(struct input *in, int fd);
/* The process has ended: what it didn't read is of no use to anybody. */
void input_close(struct input *in);

bool input_exists(uint32_t id);
/* Says on a fresh connection what each stream takes. */
void inputs_connected(void);
void inputs_describe(struct buffer *answer);
void input_data(const struct frame *f);

#endif
