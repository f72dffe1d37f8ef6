#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "fields.h"
#include "loop.h"
#include "process.h"

#define INPUT_BUFFER_BYTES 65536
/* The host hears of freed room once it is worth a frame. */
#define WORTH_TELLING_BYTES (INPUT_BUFFER_BYTES / 4)

struct input {
	struct watch watch; /* first: the callback gets its address */
	struct input *next;
	uint32_t id;
	int fd; /* -1: no target yet, or nobody reads any more */
	bool is_dead; /* nobody reads any more: take and forget */
	bool eof;
	uint64_t received; /* offset of the next byte from the host */
	uint64_t told; /* up to where the host may send, as far as it knows */
	size_t start;
	size_t used;
	uint8_t data[INPUT_BUFFER_BYTES];
};

static struct input *inputs;

static struct input *find(uint32_t id)
{
	struct input *in = inputs;

	while (in && in->id != id)
		in = in->next;
	return in;
}

bool input_exists(uint32_t id)
{
	return find(id) != NULL;
}

static void send_ack(struct input *in, uint8_t flags)
{
	uint8_t window[4];
	uint32_t room = (uint32_t)(INPUT_BUFFER_BYTES - in->used);

	put_u32(window, room);
	in->told = in->received + room;
	channel_send(FRAME_ACK, flags, in->id, in->received, window, sizeof(window));
}

struct input *input_make(uint32_t id)
{
	struct input *in;

	if (find(id))
		return NULL;
	in = calloc(1, sizeof(*in));
	if (!in)
		return NULL;
	in->id = id;
	in->fd = -1;
	in->watch.fd = -1;
	in->next = inputs;
	inputs = in;
	send_ack(in, 0);
	return in;
}

static void forget(struct input *in)
{
	struct input **at = &inputs;

	while (*at != in)
		at = &(*at)->next;
	*at = in->next;
	loop_remove(&in->watch);
	if (in->fd >= 0)
		close(in->fd);
	process_stream_gone(NULL, in);
	free(in);
}

void input_close(struct input *in)
{
	send_ack(in, FLAG_EOF);
	forget(in);
}

static void stop_target(struct input *in)
{
	loop_remove(&in->watch);
	close(in->fd);
	in->fd = -1;
	in->is_dead = true;
	in->used = 0;
}

static void writable(struct watch *w, uint32_t events);

/* Writes what the process takes; may forget the stream. */
static void drain(struct input *in)
{
	size_t part;
	ssize_t count;

	while (in->used && in->fd >= 0) {
		part = INPUT_BUFFER_BYTES - in->start;
		count = write(in->fd, in->data + in->start, in->used < part ? in->used : part);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN) {
			if (in->watch.fd < 0 && !loop_add(&in->watch, in->fd, EPOLLOUT, writable))
				stop_target(in);
			break;
		}
		if (count < 0) { /* the reader has closed its end */
			stop_target(in);
			break;
		}
		in->start = (in->start + (size_t)count) % INPUT_BUFFER_BYTES;
		in->used -= (size_t)count;
	}
	if (!in->used && in->eof && (in->fd >= 0 || in->is_dead)) {
		input_close(in);
		return;
	}
	if (!in->used)
		loop_remove(&in->watch);
	if (in->received + INPUT_BUFFER_BYTES - in->used >= in->told + WORTH_TELLING_BYTES ||
	    (!in->used && in->received + INPUT_BUFFER_BYTES > in->told))
		send_ack(in, 0);
}

static void writable(struct watch *w, uint32_t events)
{
	(void)events;
	drain((struct input *)w);
}

bool input_set_target(struct input *in, int fd)
{
	if (fcntl(fd, F_SETFL, O_NONBLOCK))
		return false;
	in->fd = fd;
	drain(in);
	return true;
}

static void store(struct input *in, const uint8_t *bytes, size_t count)
{
	size_t at = (in->start + in->used) % INPUT_BUFFER_BYTES;
	size_t part = INPUT_BUFFER_BYTES - at < count ? INPUT_BUFFER_BYTES - at : count;

	in->received += count;
	if (in->is_dead)
		return;
	memcpy(in->data + at, bytes, part);
	memcpy(in->data, bytes + part, count - part);
	in->used += count;
}

void input_data(const struct frame *f)
{
	struct input *in = find(f->stream);
	uint64_t known;
	size_t count, room;

	if (!in || f->offset > in->received || in->eof)
		return;
	known = in->received - f->offset;
	if (known > f->length)
		return;
	count = f->length - (size_t)known;
	room = INPUT_BUFFER_BYTES - in->used;
	if (count > room) /* beyond the window: the host will send it again */
		store(in, f->payload + known, room);
	else
		store(in, f->payload + known, count);
	in->eof = f->flags & FLAG_EOF && count <= room;
	drain(in);
}

void inputs_connected(void)
{
	for (struct input *in = inputs; in; in = in->next)
		send_ack(in, 0);
}

void inputs_describe(struct buffer *answer)
{
	size_t group;

	for (const struct input *in = inputs; in; in = in->next) {
		group = put_open(answer, TAG_STREAM);
		put_number(answer, TAG_STREAM_ID, in->id);
		put_number(answer, TAG_DIRECTION, DIRECTION_INPUT);
		put_number(answer, TAG_BASE, in->received);
		put_number(answer, TAG_END, in->received);
		put_number(answer, TAG_FLAGS, in->eof ? FLAG_EOF : 0);
		put_close(answer, group);
	}
}
