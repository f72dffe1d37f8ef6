#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "events.h"
#include "fields.h"
#include "process.h"
#include "spool.h"

#define SOURCES 2
#define READS_PER_TURN 8
#define ROOM_TO_READ_BYTES (RECORD_HEADER_SIZE_BYTES + 512)
#define ROOM_TO_RESUME_BYTES 65536

struct source {
	struct watch watch;
	struct output *output;
	int fd; /* -1: closed */
	uint8_t number;
};

struct output {
	struct output *next;
	uint32_t id;
	struct container *container; /* NULL once it has been deleted */
	struct spool spool;
	struct source sources[SOURCES];
	/* A record that was read but couldn't be written to the spool's file. */
	uint8_t held[RECORD_HEADER_SIZE_BYTES + MAX_RECORD_BYTES];
	size_t held_length;
	bool sealed;
	bool finishing;
	bool blocked;
	bool ended;
	/* This connection: */
	bool granted;
	bool eof_sent;
	uint64_t send_next;
	uint64_t limit;
};

static struct output *outputs;
static struct output *turn; /* who was served last */

static void source_ready(struct watch *w, uint32_t events);

static struct output *find(uint32_t id)
{
	struct output *o = outputs;

	while (o && o->id != id)
		o = o->next;
	return o;
}

bool output_exists(uint32_t id)
{
	return find(id) != NULL;
}

struct output *output_make(uint32_t id, struct container *c, size_t memory_size)
{
	struct output *o;

	if (find(id))
		return NULL;
	o = calloc(1, sizeof(*o));
	if (!o || !spool_init(&o->spool, memory_size)) {
		free(o);
		return NULL;
	}
	o->id = id;
	o->container = c;
	for (int i = 0; i < SOURCES; i++)
		o->sources[i] = (struct source){ .watch = WATCH_NONE, .output = o, .fd = -1 };
	o->next = outputs;
	outputs = o;
	return o;
}

void output_set_spill(struct output *o, int fd, uint64_t size)
{
	spool_set_file(&o->spool, fd, size);
}

static void set_blocked(struct output *o, bool blocked)
{
	struct container *c = o->container;

	if (o->blocked == blocked)
		return;
	o->blocked = blocked;
	if (!c)
		return;
	c->blocked_outputs += blocked ? 1u : -1u;
	if (c->blocked_outputs == (blocked ? 1u : 0u))
		event_backpressure(c->id, blocked);
}

static void check_end(struct output *o)
{
	if (!o->sealed || o->ended || o->held_length)
		return;
	for (int i = 0; i < SOURCES; i++)
		if (o->sources[i].fd >= 0)
			return;
	o->ended = true;
	set_blocked(o, false);
}

static void source_close(struct source *s)
{
	loop_remove(&s->watch);
	close(s->fd);
	s->fd = -1;
	check_end(s->output);
}

/* Out of the loop altogether: a closed pipe would report EPOLLHUP without end. */
static void block(struct output *o)
{
	for (int i = 0; i < SOURCES; i++)
		loop_remove(&o->sources[i].watch);
	set_blocked(o, true);
}

static bool keep_record(struct output *o, const uint8_t *record, size_t length)
{
	if (spool_append(&o->spool, record, length))
		return true;
	say("stream %u: can't write to the spool: %m", o->id);
	if (record != o->held)
		memcpy(o->held, record, length);
	o->held_length = length;
	block(o);
	return false;
}

static void relay(struct source *s)
{
	struct output *o = s->output;
	uint8_t record[RECORD_HEADER_SIZE_BYTES + MAX_RECORD_BYTES];
	uint64_t space;
	ssize_t count;

	for (int i = 0; i < READS_PER_TURN || o->finishing; i++) {
		space = spool_space(&o->spool);
		if (space < ROOM_TO_READ_BYTES) {
			block(o);
			return;
		}
		space -= RECORD_HEADER_SIZE_BYTES;
		count = read(s->fd, record + RECORD_HEADER_SIZE_BYTES,
			     space < MAX_RECORD_BYTES ? (size_t)space : MAX_RECORD_BYTES);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN && !o->finishing)
			return;
		if (count <= 0) { /* EIO: the last holder of a terminal has gone */
			source_close(s);
			return;
		}
		put_u64(record, clock_ns(CLOCK_REALTIME));
		put_u32(record + 8, (uint32_t)count);
		put_u32(record + 12, s->number);
		if (!keep_record(o, record, RECORD_HEADER_SIZE_BYTES + (size_t)count))
			return;
	}
}

static void source_ready(struct watch *w, uint32_t events)
{
	(void)events;
	relay((struct source *)w); /* the watch is its first member */
}

bool output_add_source(struct output *o, int fd, uint8_t number)
{
	struct source *s = o->sources[0].fd < 0 ? &o->sources[0] : &o->sources[1];

	if (s->fd >= 0 || fcntl(fd, F_SETFL, O_NONBLOCK) ||
	    !loop_add(&s->watch, fd, EPOLLIN, source_ready))
		return false;
	s->fd = fd;
	s->number = number;
	return true;
}

void output_seal(struct output *o)
{
	o->sealed = true;
	check_end(o);
}

void output_finish(struct output *o)
{
	o->finishing = true;
	o->sealed = true;
	for (int i = 0; i < SOURCES && !o->blocked; i++)
		if (o->sources[i].fd >= 0)
			relay(&o->sources[i]);
	check_end(o);
}

static void resume(struct output *o)
{
	uint64_t wanted = (o->spool.memory_size + o->spool.file_size) / 4;

	if (wanted > ROOM_TO_RESUME_BYTES)
		wanted = ROOM_TO_RESUME_BYTES;
	if (!o->blocked || spool_space(&o->spool) < wanted)
		return;
	if (o->held_length) {
		if (!keep_record(o, o->held, o->held_length))
			return;
		o->held_length = 0;
	}
	set_blocked(o, false);
	for (int i = 0; i < SOURCES; i++) {
		struct source *s = &o->sources[i];

		if (s->fd >= 0 && !loop_add(&s->watch, s->fd, EPOLLIN, source_ready))
			source_close(s);
	}
	if (o->finishing)
		output_finish(o);
	check_end(o);
}

void output_discard(struct output *o)
{
	struct output **at = &outputs;

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	if (turn == o)
		turn = NULL;
	set_blocked(o, false);
	for (int i = 0; i < SOURCES; i++) {
		loop_remove(&o->sources[i].watch);
		if (o->sources[i].fd >= 0)
			close(o->sources[i].fd);
	}
	process_stream_gone(o, NULL);
	spool_free(&o->spool);
	free(o);
}

void outputs_orphan(struct container *c)
{
	for (struct output *o = outputs; o; o = o->next) {
		if (o->container != c)
			continue;
		output_finish(o);
		o->container = NULL;
	}
}

void outputs_disconnected(void)
{
	for (struct output *o = outputs; o; o = o->next) {
		o->granted = false;
		o->eof_sent = false;
	}
}

void outputs_describe(struct buffer *answer)
{
	size_t group;

	for (const struct output *o = outputs; o; o = o->next) {
		group = put_open(answer, TAG_STREAM);
		put_number(answer, TAG_STREAM_ID, o->id);
		put_number(answer, TAG_DIRECTION, DIRECTION_OUTPUT);
		put_number(answer, TAG_BASE, o->spool.base);
		put_number(answer, TAG_END, spool_end(&o->spool));
		put_number(answer, TAG_FLAGS, o->ended ? FLAG_EOF : 0);
		put_close(answer, group);
	}
}

void output_acknowledge(const struct frame *f)
{
	struct output *o = find(f->stream);
	uint64_t end, safe = f->offset;
	uint32_t window;

	if (!o || f->length != 4)
		return;
	window = get_u32(f->payload);
	end = spool_end(&o->spool);
	if (safe > end)
		return; /* nobody can have that: not ours to act on */
	if (f->flags & FLAG_EOF && o->ended && safe == end) {
		output_discard(o);
		return;
	}
	spool_release(&o->spool, safe);
	if (!o->granted || o->send_next < o->spool.base)
		o->send_next = o->spool.base;
	o->granted = true;
	o->limit = safe + window;
	resume(o);
}

static size_t next_frame(struct output *o, uint8_t *to)
{
	struct frame f = { .type = FRAME_DATA, .stream = o->id, .offset = o->send_next };
	uint64_t end = spool_end(&o->spool), until = end < o->limit ? end : o->limit;
	long count = 0;

	if (!o->granted)
		return 0;
	if (until > o->send_next) {
		count = (long)(until - o->send_next);
		if (count > MAX_PAYLOAD_BYTES)
			count = MAX_PAYLOAD_BYTES;
		count = spool_read(&o->spool, o->send_next, to + HEADER_SIZE_BYTES,
				   (size_t)count);
		if (count < 0) {
			say("stream %u: can't read the spool: %m", o->id);
			o->granted = false; /* until the host asks again */
			return 0;
		}
	}
	o->send_next += (uint64_t)count;
	if (o->ended && o->send_next == end) {
		f.flags = FLAG_EOF;
		if (!count && o->eof_sent)
			return 0;
		o->eof_sent = true;
	} else if (!count) {
		return 0;
	}
	f.length = (uint16_t)count;
	return frame_seal(to, &f);
}

size_t outputs_next_frame(uint8_t *to)
{
	struct output *first = turn && turn->next ? turn->next : outputs, *o = first;
	size_t size;

	if (!o)
		return 0;
	do {
		size = next_frame(o, to);
		if (size) {
			turn = o;
			return size;
		}
		o = o->next ? o->next : outputs;
	} while (o != first);
	return 0;
}
