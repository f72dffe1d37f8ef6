/* The journal: every event until the host has acknowledged it. */
#ifndef SLIPWAY_EVENTS_H
#define SLIPWAY_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct process;

void event_process_exited(struct process *p);
/* Of each container only the newest of these is kept. */
void event_oom(const char *container, uint64_t count);
void event_backpressure(const char *container, bool blocked);
/* Everything up to `number` is recorded by the host. */
void events_acknowledge(uint64_t number);
/* Queues all that is unacknowledged, after HELLO_ACK. */
void events_send_again(void);

#endif
