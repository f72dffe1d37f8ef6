/* The journal: every event until the host has acknowledged it. */
#ifndef SLIPWAY_EVENTS_H
#define SLIPWAY_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct process;

void event_process_exited(struct process *p);
/* Of each container only the newest of these is kept. */
void event_oom(const char *container, uint64_t count);
void event_backpressure(const char *container, bool blocked);
/* Everything up to `number` is recorded by the host. */
void events_acknowledge(uint64_t number);
/* A fresh connection: everything unacknowledged is to be sent again. */
void events_connected(void);
/* Writes the next event to be sent as a frame; 0 if there is none. The channel asks, so that no host
 * that reads slowly makes events pile up a second time. */
size_t events_next_frame(uint8_t *to);

#endif
