/* Fuzzing of everything that reads bytes from the wire: receiver, fields, specs.
 *
 * Built with -DLIBFUZZER it is a libFuzzer target; otherwise a driver of its own mutates valid messages:
 * `fuzz ITERATIONS SEED`, the same each time. */
#include <string.h>

#include "check.h"
#include "fields.h"
#include "frame.h"
#include "spec.h"
#include "tree_record.h"

static void parse_message(const uint8_t *data, size_t size)
{
	struct fields f = { data, size };
	struct create_spec create;
	struct process_spec process;
	struct limits limits;
	struct arena arena;
	char id[ID_SIZE];

	/* As operations.c: nothing is parsed that isn't well formed on its first level. */
	if (!fields_valid(f))
		return;
	id_parse(f, TAG_CONTAINER, id);
	limits_parse(f, &limits);
	CHECK(arena_init(&arena, size));
	create_spec_parse(f, &arena, &create);
	arena_free(&arena);
	CHECK(arena_init(&arena, size));
	process_spec_parse(f, &arena, &process);
	arena_free(&arena);
}

static void parse_tree(const uint8_t *data, size_t size)
{
	static struct tree_entry entry;
	struct tree_record r, whole = { TREE_RECORD_ENTRY, data, size };
	struct field value;
	char name[256];
	ssize_t taken;

	for (size_t at = 0; (taken = tree_record_parse(data + at, size - at, &r)) > 0;
	     at += (size_t)taken)
		CHECK(r.payload + r.length <= data + size);
	if (!tree_entry_parse(&whole, &entry))
		return;
	CHECK(strlen(entry.name) < TREE_NAME_SIZE && entry.name[0] != '/');
	while (tree_xattr_next(&entry.fields, name, &value) > 0)
		CHECK(strlen(name) < sizeof(name) && value.data + value.length <= data + size);
}

static void receive(const uint8_t *data, size_t size)
{
	static struct receiver r;
	struct frame f;
	size_t space, step = size ? 1 + data[0] * 40u : 1;
	uint8_t *room;

	receiver_init(&r);
	while (size) {
		room = receiver_room(&r, &space);
		CHECK(space > 0);
		if (space > step)
			space = step;
		if (space > size)
			space = size;
		memcpy(room, data, space);
		receiver_added(&r, space);
		data += space;
		size -= space;
		while (receiver_next(&r, &f)) {
			CHECK(f.length <= MAX_PAYLOAD_BYTES && f.payload >= r.data &&
			      f.payload + f.length <= r.data + r.end);
			parse_message(f.payload, f.length);
			parse_tree(f.payload, f.length);
		}
	}
	CHECK(r.end - r.start < MAX_FRAME_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* In memory of exactly that size, so that ASan sees one byte too many. */
	uint8_t *exact = malloc(size ? size : 1);

	CHECK(exact);
	if (size)
		memcpy(exact, data, size);
	receive(exact, size);
	parse_tree(exact, size);
	parse_message(exact, size);
	free(exact);
	return 0;
}

#ifndef LIBFUZZER
#define MAX_INPUT_BYTES 40000

static uint64_t state;

static uint32_t random_number(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % below;
}

static void put_some_fields(struct buffer *b, int depth)
{
	uint8_t bytes[64];
	size_t group;

	for (uint32_t i = random_number(12); i-- > 0;) {
		uint16_t tag = (uint16_t)(random_number(108) + 1);
		uint32_t length = random_number(sizeof(bytes));

		switch (random_number(depth ? 4 : 3)) {
		case 0:
			put_number(b, tag, random_number(3) ? random_number(70000) : ~0ull);
			break;
		case 1:
			for (uint32_t at = 0; at < length; at++)
				bytes[at] = (uint8_t)('a' + random_number(26));
			put_bytes(b, tag, bytes, length);
			break;
		case 2:
			for (uint32_t at = 0; at < length; at++)
				bytes[at] = (uint8_t)random_number(256);
			put_bytes(b, tag, bytes, length);
			break;
		default:
			group = put_open(b, random_number(2) ? TAG_PROCESS_SPEC : TAG_FILE);
			put_some_fields(b, depth - 1);
			put_close(b, group);
		}
	}
	put_string(b, TAG_NAME, random_number(2) ? "a/b" : "..");
	put_number(b, TAG_MODE, 0100644);
	put_string(b, TAG_ARG, "sh");
	put_number(b, TAG_OUTPUT_STREAM, 1);
}

static size_t make_input(uint8_t *to)
{
	size_t size = 0;
	struct buffer b;
	struct frame f;

	for (uint32_t i = random_number(4) + 1; i-- > 0 && size < MAX_INPUT_BYTES / 2;) {
		buffer_init(&b, 8000);
		put_some_fields(&b, 3);
		f = (struct frame){ .type = (uint8_t)(random_number(10) + 1),
				    .flags = (uint8_t)random_number(4),
				    .length = (uint16_t)b.length };
		if (b.length)
			memcpy(to + size + HEADER_SIZE_BYTES, b.data, b.length);
		size += random_number(4) ? frame_seal(to + size, &f) : b.length;
		buffer_free(&b);
	}
	return size;
}

static size_t mutate(uint8_t *data, size_t size)
{
	static const uint8_t interesting[] = { 0, 1, 0x7f, 0x80, 0xff, 0x53 };
	uint32_t at, count;

	for (uint32_t i = random_number(6); i-- > 0 && size;) {
		at = random_number((uint32_t)size);
		count = random_number((uint32_t)(size - at)) + 1;
		switch (random_number(5)) {
		case 0:
			data[at] ^= (uint8_t)(1u << random_number(8));
			break;
		case 1:
			data[at] = interesting[random_number(sizeof(interesting))];
			break;
		case 2:
			memmove(data + at, data + at + count, size - at - count);
			size -= count;
			break;
		case 3:
			if (size + count <= MAX_INPUT_BYTES) {
				memmove(data + at + count, data + at, size - at);
				size += count;
			}
			break;
		default:
			size = at;
		}
	}
	return size;
}

int main(int argc, char **argv)
{
	static uint8_t data[2 * MAX_INPUT_BYTES];
	long iterations = argc > 1 ? atol(argv[1]) : 20000;
	size_t size;

	state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	CHECK(state);
	for (long i = 0; i < iterations; i++) {
		size = mutate(data, make_input(data));
		LLVMFuzzerTestOneInput(data, size);
	}
	printf("%ld inputs\n", iterations);
	return 0;
}
#endif
