#include "hello.h"

#include <sys/utsname.h>

#include "console.h"
#include "fields.h"
#include "input.h"
#include "output.h"
#include "process.h"

#define STAGES 16

static struct {
	const char *name;
	uint64_t at_ns;
} stages[STAGES];
static int stage_count;

void hello_stage(const char *name)
{
	if (stage_count == STAGES)
		return;
	stages[stage_count].name = name;
	stages[stage_count].at_ns = clock_ns(CLOCK_BOOTTIME);
	say("%s: %llu ms after boot", name,
	    (unsigned long long)(stages[stage_count++].at_ns / 1000000));
}

void hello_forget_stages(void)
{
	stage_count = 0;
}

static void put_state(struct buffer *answer)
{
	struct utsname kernel;
	size_t group;

	uname(&kernel);
	put_string(answer, TAG_AGENT_VERSION, AGENT_VERSION);
	put_string(answer, TAG_KERNEL, kernel.release);
	put_number(answer, TAG_TIME_NS, clock_ns(CLOCK_REALTIME));
	put_number(answer, TAG_UPTIME_NS, clock_ns(CLOCK_BOOTTIME));
	for (int i = 0; i < stage_count; i++) {
		group = put_open(answer, TAG_STAGE);
		put_string(answer, TAG_NAME, stages[i].name);
		put_number(answer, TAG_AT_NS, stages[i].at_ns);
		put_close(answer, group);
	}
	outputs_describe(answer);
	inputs_describe(answer);
	processes_describe(answer);
}

enum hello_result hello_answer(const struct frame *f, struct buffer *answer)
{
	struct fields fields = { f->payload, f->length };
	struct field nonce, field;
	uint64_t min, max;

	if (f->flags & FLAG_MORE || !fields_valid(fields) ||
	    !fields_find(fields, TAG_NONCE, &nonce) || nonce.length != NONCE_SIZE_BYTES ||
	    !fields_find(fields, TAG_VERSION_MIN, &field) || !field_number(&field, &min) ||
	    !fields_find(fields, TAG_VERSION_MAX, &field) || !field_number(&field, &max))
		return HELLO_MALFORMED;
	put_bytes(answer, TAG_NONCE, nonce.data, nonce.length);
	if (min > PROTOCOL_VERSION || max < PROTOCOL_VERSION) {
		put_number(answer, TAG_VERSION, 0);
		put_string(answer, TAG_AGENT_VERSION, AGENT_VERSION);
		return HELLO_NO_VERSION;
	}
	put_number(answer, TAG_VERSION, PROTOCOL_VERSION);
	put_state(answer);
	return answer->failed ? HELLO_MALFORMED : HELLO_AGREED;
}
