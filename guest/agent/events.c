#include "events.h"

#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "fields.h"
#include "frame.h"
#include "process.h"

#define EVENT_LIMIT_BYTES 1024

struct event {
	struct event *next;
	uint64_t number;
	unsigned kind;
	char container[ID_SIZE];
	struct buffer payload;
};

static struct event *journal;
static uint64_t last_number;
static uint64_t sent_number; /* on this connection */

static void event_free(struct event *e)
{
	buffer_free(&e->payload);
	free(e);
}

static struct event *event_begin(unsigned kind, const char *container)
{
	struct event *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->kind = kind;
	strcpy(e->container, container);
	buffer_init(&e->payload, EVENT_LIMIT_BYTES);
	put_number(&e->payload, TAG_EVENT_KIND, kind);
	put_string(&e->payload, TAG_CONTAINER, container);
	return e;
}

/* Appends to the journal. */
static uint64_t event_commit(struct event *e)
{
	struct event **at = &journal;

	if (!e || e->payload.failed) {
		say("out of memory for an event: the host won't hear of it");
		if (e)
			event_free(e);
		return 0;
	}
	while (*at)
		at = &(*at)->next;
	*at = e;
	e->number = ++last_number;
	return e->number;
}

static void forget_older(unsigned kind, const char *container)
{
	struct event **at = &journal, *e;

	while ((e = *at)) {
		if (e->kind == kind && !strcmp(e->container, container)) {
			*at = e->next;
			event_free(e);
		} else {
			at = &e->next;
		}
	}
}

void event_process_exited(struct process *p)
{
	struct event *e = event_begin(EVENT_PROCESS_EXITED, p->container->id);

	if (e) {
		put_string(&e->payload, TAG_PROCESS_ID, p->id);
		put_number(&e->payload, TAG_EXIT_CODE, (uint64_t)p->exit_code);
		put_number(&e->payload, TAG_SIGNAL, (uint64_t)p->signal);
		put_number(&e->payload, TAG_OOM_KILLED, p->oom_killed);
		put_number(&e->payload, TAG_TIME_NS, p->time_ns);
	}
	p->exit_event = event_commit(e);
}

void event_oom(const char *container, uint64_t count)
{
	struct event *e = event_begin(EVENT_OOM, container);

	forget_older(EVENT_OOM, container);
	if (e)
		put_number(&e->payload, TAG_COUNT, count);
	event_commit(e);
}

void event_backpressure(const char *container, bool blocked)
{
	struct event *e = event_begin(EVENT_BACKPRESSURE, container);

	forget_older(EVENT_BACKPRESSURE, container);
	if (e) {
		put_number(&e->payload, TAG_BLOCKED, blocked);
		put_number(&e->payload, TAG_TIME_NS, clock_ns(CLOCK_REALTIME));
	}
	event_commit(e);
}

void events_acknowledge(uint64_t number)
{
	struct event *e;

	while ((e = journal) && e->number <= number) {
		journal = e->next;
		event_free(e);
	}
	processes_forget(number);
}

void events_connected(void)
{
	sent_number = 0;
}

size_t events_next_frame(uint8_t *to)
{
	struct frame f = { .type = FRAME_EVENT };
	const struct event *e = journal;

	while (e && e->number <= sent_number)
		e = e->next;
	if (!e)
		return 0;
	sent_number = f.offset = e->number;
	f.length = (uint16_t)e->payload.length;
	memcpy(to + HEADER_SIZE_BYTES, e->payload.data, e->payload.length);
	return frame_seal(to, &f);
}
