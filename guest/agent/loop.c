#include "loop.h"

#include <errno.h>
#include <stddef.h>

#define BATCH 16

static int epoll_fd = -1;
static struct epoll_event batch[BATCH];
static int batch_count;

bool loop_init(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd >= 0;
}

bool loop_add(struct watch *w, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t))
{
	struct epoll_event event = { .events = events, .data.ptr = w };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return false;
	w->fd = fd;
	w->ready = ready;
	return true;
}

void loop_remove(struct watch *w)
{
	if (w->fd < 0)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
	/* An event that was fetched together with the one being handled must not reach it. */
	for (int i = 0; i < batch_count; i++)
		if (batch[i].data.ptr == w)
			batch[i].data.ptr = NULL;
}

void loop_run(int timeout_ms)
{
	struct watch *w;

	batch_count = epoll_wait(epoll_fd, batch, BATCH, timeout_ms);
	for (int i = 0; i < batch_count; i++) {
		w = batch[i].data.ptr;
		if (w)
			w->ready(w, batch[i].events);
	}
	batch_count = 0;
}
