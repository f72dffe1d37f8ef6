#include "requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "console.h"
#include "fields.h"
#include "operations.h"

#define ANSWERS 64
#define UNDER_WAY 64
#define ANSWER_LIMIT_BYTES 65536

struct answer {
	uint64_t id;
	struct buffer payload;
};

static struct answer answers[ANSWERS];
static unsigned next_answer;
static uint64_t under_way[UNDER_WAY];
static unsigned under_way_count;
static struct buffer request;
static uint64_t request_id;
static bool is_partial; /* fragments of request_id are in `request` */

void requests_disconnected(void)
{
	buffer_free(&request);
	is_partial = false;
}

static const struct answer *find_answer(uint64_t id)
{
	for (unsigned i = 0; i < ANSWERS; i++)
		if (answers[i].payload.length && answers[i].id == id)
			return &answers[i];
	return NULL;
}

static bool is_under_way(uint64_t id)
{
	for (unsigned i = 0; i < under_way_count; i++)
		if (under_way[i] == id)
			return true;
	return false;
}

static void send_answer(const struct answer *a)
{
	channel_send(FRAME_RESPONSE, 0, 0, a->id, a->payload.data, a->payload.length);
}

static void run(void)
{
	const struct answer *a = find_answer(request_id);

	if (a) {
		send_answer(a);
		return;
	}
	if (is_under_way(request_id))
		return;
	if (under_way_count == UNDER_WAY) {
		request_answer(request_id, EBUSY, "too many requests at once", NULL);
		return;
	}
	under_way[under_way_count++] = request_id;
	operation_run(request_id, request.data, request.length);
}

void requests_frame(const struct frame *f)
{
	if (!is_partial || f->offset != request_id) {
		buffer_free(&request);
		buffer_init(&request, MAX_MESSAGE_BYTES);
		request_id = f->offset;
		is_partial = true;
	}
	buffer_append(&request, f->payload, f->length);
	if (f->flags & FLAG_MORE)
		return;
	if (request.failed)
		request_answer(request_id, EMSGSIZE, "the request is too long", NULL);
	else
		run();
	requests_disconnected();
}

void request_answer(uint64_t id, int error, const char *message, const struct buffer *result)
{
	struct answer *a = &answers[next_answer];

	for (unsigned i = 0; i < under_way_count; i++)
		if (under_way[i] == id)
			under_way[i] = under_way[--under_way_count];
	buffer_free(&a->payload);
	buffer_init(&a->payload, ANSWER_LIMIT_BYTES);
	a->id = id;
	put_number(&a->payload, TAG_ERRNO, (uint64_t)error);
	if (error)
		put_string(&a->payload, TAG_MESSAGE, message);
	if (result)
		buffer_append(&a->payload, result->data, result->length);
	if (a->payload.failed || (result && result->failed)) {
		say("out of memory for an answer: request %llu stays open",
		    (unsigned long long)id);
		buffer_free(&a->payload);
		return;
	}
	next_answer = (next_answer + 1) % ANSWERS;
	send_answer(a);
}
