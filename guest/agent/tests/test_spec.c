/* What the host asks for, as the agent reads it. One line per test on stdout. */
#include <string.h>

#include "check.h"
#include "fields.h"
#include "protocol.h"
#include "spec.h"

static void put_process(struct buffer *b)
{
	size_t at = put_open(b, TAG_PROCESS_SPEC);

	put_string(b, TAG_ARG, "sh");
	put_string(b, TAG_ARG, "");
	put_string(b, TAG_ENV, "A=b");
	put_number(b, TAG_OUTPUT_STREAM, 4);
	put_number(b, TAG_OOM_SCORE_ADJ, (uint64_t)-5);
	put_close(b, at);
}

static bool parse(struct buffer *b, struct create_spec *s, struct arena *a)
{
	bool good;

	CHECK(!b->failed && arena_init(a, b->length));
	good = create_spec_parse((struct fields){ b->data, b->length }, a, s);
	buffer_free(b);
	return good;
}

static void create_is_parsed(void)
{
	struct create_spec s;
	struct arena a;
	struct buffer b;
	size_t at;

	buffer_init(&b, 10000);
	put_string(&b, TAG_LAYER, "l1");
	put_string(&b, TAG_LAYER, "l2");
	at = put_open(&b, TAG_FILE);
	put_string(&b, TAG_PATH, "/etc/hosts");
	put_bytes(&b, TAG_DATA, "a\0b", 3);
	put_number(&b, TAG_MODE, 0640);
	put_close(&b, at);
	put_number(&b, TAG_MEMORY_MAX_BYTES, 1 << 20);
	put_process(&b);
	CHECK(parse(&b, &s, &a));
	CHECK(s.layers.count == 2 && !strcmp(s.layers.items[1], "l2") && !s.layers.items[2]);
	CHECK(s.files.count == 1 && s.files.items[0].length == 3 && s.files.items[0].mode == 0640);
	CHECK(s.limits.memory_max_bytes.is_set && !s.limits.pids_max.is_set);
	CHECK(s.process.args.count == 2 && !strcmp(s.process.args.items[1], ""));
	CHECK(s.process.oom_score_adj == -5 && s.process.output_stream == 4);
	CHECK(!strcmp(s.process.cwd, "/") && !strcmp(s.hostname, ""));
	arena_free(&a);
}

static void create_is_refused_with_a_reason(void)
{
	struct create_spec s;
	struct arena a;
	struct buffer b;

	buffer_init(&b, 10000);
	CHECK(!parse(&b, &s, &a) && strstr(a.error, "PROCESS_SPEC"));
	arena_free(&a);
	buffer_init(&b, 10000);
	put_bytes(&b, TAG_LAYER, "a\0b", 3);
	put_process(&b);
	CHECK(!parse(&b, &s, &a) && strstr(a.error, "no string"));
	arena_free(&a);
	buffer_init(&b, 10000);
	put_bytes(&b, TAG_SECCOMP, "1234567", 7);
	put_process(&b);
	CHECK(!parse(&b, &s, &a) && strstr(a.error, "SECCOMP"));
	arena_free(&a);
}

static void identifiers_are_checked(void)
{
	static const char *const good[] = { "a", "0af_.-9", "init" };
	static const char *const bad[] = { "", ".x", "-x", "a/b", "..", "a b" };
	char id[ID_SIZE], text[ID_SIZE + 1];
	struct buffer b;

	for (size_t i = 0; i < 3; i++) {
		buffer_init(&b, 100);
		put_string(&b, TAG_CONTAINER, good[i]);
		CHECK(id_parse((struct fields){ b.data, b.length }, TAG_CONTAINER, id));
		CHECK(!strcmp(id, good[i]));
		buffer_free(&b);
	}
	for (size_t i = 0; i < 7; i++) {
		memset(text, 'a', sizeof(text) - 1);
		text[sizeof(text) - 1] = 0;
		buffer_init(&b, 100);
		put_string(&b, TAG_CONTAINER, i < 6 ? bad[i] : text);
		CHECK(!id_parse((struct fields){ b.data, b.length }, TAG_CONTAINER, id));
		buffer_free(&b);
	}
}

int main(void)
{
	RUN(create_is_parsed);
	RUN(create_is_refused_with_a_reason);
	RUN(identifiers_are_checked);
	return 0;
}
