/* The one event loop: epoll, watches with callbacks. */
#ifndef SLIPWAY_LOOP_H
#define SLIPWAY_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct watch {
	int fd; /* -1: not in the loop */
	void (*ready)(struct watch *w, uint32_t events);
};

#define WATCH_NONE { .fd = -1, .ready = NULL }

bool loop_init(void);
/* Sets `w->fd`; EPOLL* `events`. False (errno set) if the kernel refuses. */
bool loop_add(struct watch *w, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t));
/* Takes the watch out; its fd stays open. Safe inside any callback and twice. */
void loop_remove(struct watch *w);
/* Waits and calls back once. `timeout_ms` -1: without a limit. */
void loop_run(int timeout_ms);

#endif
