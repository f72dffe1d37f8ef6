#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "events.h"
#include "frame.h"
#include "hello.h"
#include "input.h"
#include "loop.h"
#include "output.h"
#include "requests.h"

/* One write: the virtio port copies each into one buffer of its own and takes no more at once. */
#define WRITE_BYTES 32768
#define QUEUE_LIMIT 64 /* messages; above that the host's next ones wait in the port */
#define READS_PER_TURN 8
#define STALLED_NS 2000000000ull /* less than any host waits for an answer to HELLO */
#define HELLOS_PER_PORT 64	 /* half of its buffers: see port_reopen */

struct message {
	struct message *next;
	uint8_t type;
	uint8_t flags;
	uint32_t stream;
	uint64_t offset;
	size_t length;
	size_t sent;
	uint8_t payload[];
};

static struct {
	struct watch watch;
	struct channel_end end;
	struct receiver receiver;
	bool established;
	bool readable;
	bool writable;
	bool greeted; /* HELLO has come, and nothing has been written since */
	uint64_t stalled_ns; /* since when the answer to HELLO waits for the port; 0: it does not */
	int hellos; /* since the port was opened */
	bool is_spent;
	struct message *first;
	struct message **last;
	size_t queued;
	uint8_t out[2 * WRITE_BYTES];
	size_t out_start;
	size_t out_end;
} channel = { .watch = WATCH_NONE, .last = &channel.first };

static void drop_queue(void)
{
	struct message *m;

	while ((m = channel.first)) {
		channel.first = m->next;
		free(m);
	}
	channel.last = &channel.first;
	channel.queued = 0;
	channel.out_start = 0;
	channel.out_end = 0;
}

/* The end of a socket. A virtio port has none: read() says 0 as long as nobody is connected, but who is
 * connected is reported by another queue of the device than the data, and later. HELLO may long have
 * been read when the kernel still learns that the host before has left, so a 0 is no news at all: what is
 * queued waits for a host, and only HELLO tells that it is another one. */
static void disconnect(void)
{
	int fd = channel.watch.fd;

	channel.readable = false;
	channel.established = false;
	drop_queue();
	receiver_init(&channel.receiver);
	requests_disconnected();
	outputs_disconnected();
	loop_remove(&channel.watch);
	close(fd);
	channel.end.closed();
}

static void port_ready(struct watch *w, uint32_t events)
{
	(void)w;
	channel.readable = true;
	if (events & EPOLLOUT)
		channel.writable = true;
}

static bool watch_port(int fd)
{
	channel.readable = true;
	channel.writable = true;
	/* Edge-triggered: a port without a host reports EPOLLHUP all the time. */
	return loop_add(&channel.watch, fd, EPOLLIN | EPOLLOUT | EPOLLET, port_ready);
}

bool channel_serve(int fd, const struct channel_end *end)
{
	receiver_init(&channel.receiver);
	drop_queue();
	channel.end = *end;
	return watch_port(fd);
}

static void revive(void)
{
	int fd = channel.watch.fd;

	say("opening the port anew after %d connections", channel.hellos);
	channel.hellos = 0;
	channel.is_spent = false;
	loop_remove(&channel.watch);
	fd = channel.end.reopen(fd);
	if (fd >= 0 && !watch_port(fd))
		say("can't watch the port: %m");
}

void channel_send(uint8_t type, uint8_t flags, uint32_t stream, uint64_t offset,
		  const uint8_t *payload, size_t length)
{
	struct message *m;

	if (!channel.established)
		return;
	m = malloc(sizeof(*m) + length);
	if (!m) {
		/* The host can't tell a lost message from a slow one: make it connect again. */
		say("out of memory for a message of %zu bytes: dropping the connection", length);
		channel.established = false;
		return;
	}
	*m = (struct message){ .type = type, .flags = flags, .stream = stream,
			       .offset = offset, .length = length };
	if (length)
		memcpy(m->payload, payload, length);
	*channel.last = m;
	channel.last = &m->next;
	channel.queued++;
}

/* Each host that left may have cost the port a buffer, and one that says HELLO again after an answer
 * that could not be written met a port that has none left. */
static void note_hello(void)
{
	bool is_stalled = channel.stalled_ns &&
			  clock_ns(CLOCK_MONOTONIC) - channel.stalled_ns >= STALLED_NS;

	channel.hellos++;
	if (channel.end.reopen && (is_stalled || channel.hellos > HELLOS_PER_PORT))
		channel.is_spent = true;
	channel.stalled_ns = 0;
	channel.greeted = true;
	channel.writable = true; /* it is tried, at least */
}

static void greet(const struct frame *f)
{
	struct buffer answer;

	note_hello();
	channel.established = false;
	drop_queue();
	requests_disconnected();
	outputs_disconnected();
	buffer_init(&answer, 1024 * 1024);
	switch (hello_answer(f, &answer)) {
	case HELLO_MALFORMED:
		break;
	case HELLO_NO_VERSION:
		channel.established = true;
		channel_send(FRAME_HELLO_ACK, 0, 0, 0, answer.data, answer.length);
		channel.established = false;
		break;
	case HELLO_AGREED:
		channel.established = true;
		channel_send(FRAME_HELLO_ACK, 0, 0, 0, answer.data, answer.length);
		events_connected();
		inputs_connected();
		break;
	}
	buffer_free(&answer);
}

static void dispatch(const struct frame *f)
{
	if (f->type == FRAME_HELLO) {
		greet(f);
		return;
	}
	if (!channel.established)
		return;
	switch (f->type) {
	case FRAME_REQUEST:
		requests_frame(f);
		break;
	case FRAME_EVENT_ACK:
		events_acknowledge(f->offset);
		break;
	case FRAME_DATA:
		input_data(f);
		break;
	case FRAME_ACK:
		output_acknowledge(f);
		break;
	case FRAME_PING:
		channel_send(FRAME_PONG, 0, 0, f->offset, NULL, 0);
		break;
	default: /* guest-to-host types: nothing for us */
		break;
	}
}

static void receive(void)
{
	struct frame f;
	uint8_t *room;
	size_t space;
	ssize_t count;

	for (int i = 0; i < READS_PER_TURN && channel.readable; i++) {
		while (channel.queued < QUEUE_LIMIT && receiver_next(&channel.receiver, &f))
			dispatch(&f);
		if (channel.queued >= QUEUE_LIMIT)
			return;
		room = receiver_room(&channel.receiver, &space);
		count = read(channel.watch.fd, room, space);
		if (count > 0)
			receiver_added(&channel.receiver, (size_t)count);
		else if (count < 0 && errno == EINTR)
			continue;
		else if ((count < 0 && errno == EAGAIN) || !channel.end.closed)
			channel.readable = false;
		else
			disconnect();
	}
	while (channel.queued < QUEUE_LIMIT && receiver_next(&channel.receiver, &f))
		dispatch(&f);
}

/* The next fragment of the oldest message. */
static size_t take_message(uint8_t *to)
{
	struct message *m = channel.first;
	struct frame f = { .type = m->type, .flags = m->flags, .stream = m->stream,
			   .offset = m->offset };
	size_t part = m->length - m->sent;

	if (part > MAX_PAYLOAD_BYTES) {
		part = MAX_PAYLOAD_BYTES;
		f.flags |= FLAG_MORE;
	}
	f.length = (uint16_t)part;
	memcpy(to + HEADER_SIZE_BYTES, m->payload + m->sent, part);
	m->sent += part;
	if (m->sent == m->length) {
		channel.first = m->next;
		if (!channel.first)
			channel.last = &channel.first;
		channel.queued--;
		free(m);
	}
	return frame_seal(to, &f);
}

/* Control first, so that no stream holds it back; then the streams in turn. */
static size_t next_frame(uint8_t *to)
{
	size_t size = 0;

	if (channel.first)
		return take_message(to);
	if (channel.established)
		size = events_next_frame(to);
	if (channel.established && !size)
		size = outputs_next_frame(to);
	return size;
}

static void fill(void)
{
	size_t size;

	channel.out_start = 0;
	channel.out_end = 0;
	while (sizeof(channel.out) - channel.out_end >= MAX_FRAME_BYTES &&
	       channel.out_end < WRITE_BYTES) {
		size = next_frame(channel.out + channel.out_end);
		if (!size)
			return;
		channel.out_end += size;
	}
}

static void transmit(void)
{
	size_t part;
	ssize_t count;

	while (channel.writable && channel.watch.fd >= 0) {
		if (channel.out_start == channel.out_end)
			fill();
		part = channel.out_end - channel.out_start;
		if (!part)
			return;
		if (part > WRITE_BYTES)
			part = WRITE_BYTES;
		count = write(channel.watch.fd, channel.out + channel.out_start, part);
		if (count < 0 && errno == EINTR)
			continue;
		if (count > 0) {
			channel.out_start += (size_t)count;
			channel.greeted = false;
			channel.stalled_ns = 0;
			continue;
		}
		if (channel.greeted && !channel.stalled_ns)
			channel.stalled_ns = clock_ns(CLOCK_MONOTONIC);
		if (count < 0 && errno != EAGAIN && channel.end.closed)
			disconnect(); /* a full queue may be what keeps us from reading the end */
		else
			channel.writable = false; /* full, or nobody there: the next edge tells */
	}
}

bool channel_service(void)
{
	if (channel.watch.fd < 0)
		return false;
	receive();
	if (channel.is_spent)
		revive();
	transmit();
	return channel.watch.fd >= 0 && channel.readable && channel.queued < QUEUE_LIMIT;
}

void channel_flush(int timeout_ms)
{
	struct pollfd waiting = { .fd = channel.watch.fd, .events = POLLOUT };
	uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		channel.writable = true;
		transmit();
		if ((!channel.first && channel.out_start == channel.out_end) ||
		    channel.watch.fd < 0 || clock_ns(CLOCK_MONOTONIC) >= deadline_ns)
			return;
		/* Without a host POLLHUP would answer at once, for ever. */
		if (poll(&waiting, 1, 100) > 0 && waiting.revents & (POLLHUP | POLLERR))
			return;
	}
}
