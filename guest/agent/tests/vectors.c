/* Runs the vectors for the guest's receiver: `vectors FILE` (format: docs/channel.md, "Vectors"). */
#include <string.h>

#include "check.h"
#include "frame.h"

#define MAX_LINE_BYTES (1 << 20)

static int nibble(char c)
{
	const char *digits = "0123456789abcdef", *at = strchr(digits, c);

	CHECK(at && c);
	return (int)(at - digits);
}

static void describe(const struct frame *f, char *to)
{
	to += sprintf(to, "%u:%u:%u:%llu:", f->type, f->flags, f->stream,
		      (unsigned long long)f->offset);
	for (uint16_t i = 0; i < f->length; i++)
		to += sprintf(to, "%02x", f->payload[i]);
}

static void run(const char *hex, char *result, bool *lost)
{
	static struct receiver r;
	struct frame f;
	uint8_t *room;
	size_t space;

	receiver_init(&r);
	*result = 0;
	for (; hex[0] && hex[1]; hex += 2) {
		room = receiver_room(&r, &space);
		CHECK(space);
		*room = (uint8_t)(nibble(hex[0]) << 4 | nibble(hex[1]));
		receiver_added(&r, 1);
		while (receiver_next(&r, &f)) {
			if (*result)
				strcat(result, ",");
			describe(&f, result + strlen(result));
		}
	}
	if (!*result)
		strcpy(result, "-");
	*lost = r.losses > 0;
}

int main(int argc, char **argv)
{
	static char line[MAX_LINE_BYTES], result[MAX_LINE_BYTES];
	char *name, *side, *verdict, *hex, *wanted, *rest;
	int count = 0, failures = 0;
	FILE *file;
	bool lost;

	CHECK(argc == 2);
	file = fopen(argv[1], "r");
	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		CHECK(strchr(line, '\n'));
		if (*line == '#' || *line == '\n')
			continue;
		name = strtok_r(line, " \n", &rest);
		side = strtok_r(NULL, " \n", &rest);
		verdict = strtok_r(NULL, " \n", &rest);
		hex = strtok_r(NULL, " \n", &rest);
		wanted = strtok_r(NULL, " \n", &rest);
		CHECK(wanted);
		if (strcmp(side, "guest-rx"))
			continue;
		run(hex, result, &lost);
		count++;
		if (strcmp(result, wanted) || lost != !strcmp(verdict, "reject")) {
			failures++;
			printf("%s: got %s (%s), wanted %s (%s)\n", name, result,
			       lost ? "lost" : "in step", wanted, verdict);
		}
	}
	fclose(file);
	printf("%d vectors, %d failures\n", count, failures);
	return failures || !count;
}
