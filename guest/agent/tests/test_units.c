/* Unit tests of the agent's parts that need no kernel. One line per test on stdout. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "crc.h"
#include "fields.h"
#include "frame.h"
#include "lookup.h"
#include "spool.h"
#include "users.h"

static size_t make_frame(uint8_t *to, uint8_t type, const char *payload)
{
	struct frame f = { .type = type, .length = (uint16_t)strlen(payload), .offset = 7 };

	memcpy(to + HEADER_SIZE_BYTES, payload, f.length);
	return frame_seal(to, &f);
}

static void feed(struct receiver *r, const uint8_t *bytes, size_t count)
{
	size_t space;
	uint8_t *room = receiver_room(r, &space);

	CHECK(count <= space);
	memcpy(room, bytes, count);
	receiver_added(r, count);
}

static void crc_known_values(void)
{
	const uint8_t *text = (const uint8_t *)"123456789";

	CHECK(crc32_update(0, text, 9) == 0xcbf43926u);
	CHECK(crc32_update(crc32_update(0, text, 4), text + 4, 5) == 0xcbf43926u);
	CHECK(crc32_update(0, text, 0) == 0);
}

static void receiver_byte_by_byte(void)
{
	static struct receiver r;
	uint8_t bytes[256];
	size_t size = make_frame(bytes, FRAME_PING, "abc");
	struct frame f;

	receiver_init(&r);
	for (size_t i = 0; i + 1 < size; i++) {
		feed(&r, bytes + i, 1);
		CHECK(!receiver_next(&r, &f));
	}
	feed(&r, bytes + size - 1, 1);
	CHECK(receiver_next(&r, &f));
	CHECK(f.type == FRAME_PING && f.length == 3 && f.offset == 7);
	CHECK(!memcmp(f.payload, "abc", 3));
	CHECK(!r.lost && !receiver_next(&r, &f));
}

static void receiver_ignores_all_but_hello_when_lost(void)
{
	static struct receiver r;
	uint8_t bytes[512];
	size_t size = make_frame(bytes, FRAME_PING, "abc");
	struct frame f;

	receiver_init(&r);
	bytes[size - 1] ^= 1;
	size += make_frame(bytes + size, FRAME_PING, "x");
	size += make_frame(bytes + size, FRAME_HELLO, "y");
	size += make_frame(bytes + size, FRAME_PING, "z");
	feed(&r, bytes, size);
	CHECK(receiver_next(&r, &f) && f.type == FRAME_HELLO && !r.lost && r.losses == 1);
	CHECK(receiver_next(&r, &f) && f.type == FRAME_PING && *f.payload == 'z');
}

/* Every length of a torn frame, completed by zeros as a new host does. */
static void receiver_resynchronises_after_any_tear(void)
{
	static struct receiver r;
	static uint8_t torn[MAX_FRAME_BYTES], tail[MAX_FRAME_BYTES + 64];
	struct frame f = { .type = FRAME_DATA, .length = MAX_PAYLOAD_BYTES };
	size_t tail_size;

	memset(torn, 'S', sizeof(torn)); /* false beginnings everywhere */
	frame_seal(torn, &f);
	tail_size = MAX_FRAME_BYTES + make_frame(tail + MAX_FRAME_BYTES, FRAME_HELLO, "hello");
	for (size_t cut = 1; cut < MAX_FRAME_BYTES; cut += cut < 64 ? 1 : 331) {
		size_t given = 0;
		bool found = false;

		receiver_init(&r);
		feed(&r, torn, cut);
		CHECK(!receiver_next(&r, &f));
		while (given < tail_size) {
			size_t part = tail_size - given < 5000 ? tail_size - given : 5000;

			feed(&r, tail + given, part);
			given += part;
			found |= receiver_next(&r, &f);
		}
		CHECK(found && f.type == FRAME_HELLO && f.length == 5 && !r.lost);
	}
}

static void fields_round_trip(void)
{
	struct buffer b;
	struct fields f;
	struct field field, inner;
	uint64_t value;
	size_t group;

	buffer_init(&b, 1000);
	put_number(&b, TAG_OP, 5);
	group = put_open(&b, TAG_STAGE);
	put_string(&b, TAG_NAME, "kernel");
	put_close(&b, group);
	CHECK(!b.failed);
	f = (struct fields){ b.data, b.length };
	CHECK(fields_valid(f) && fields_count(f, TAG_STAGE) == 1);
	CHECK(fields_find(f, TAG_OP, &field) && field_number(&field, &value) && value == 5);
	CHECK(fields_find(f, TAG_STAGE, &field));
	CHECK(fields_find(field_group(&field), TAG_NAME, &inner) && inner.length == 6);
	CHECK(!fields_find(f, TAG_CWD, &field));
	for (size_t cut = 1; cut < b.length; cut++)
		if (cut != 16)
			CHECK(!fields_valid((struct fields){ b.data, cut }));
	b.data[2] = 1; /* must be zero */
	CHECK(!fields_valid(f));
	buffer_free(&b);
}

static void buffer_keeps_its_ceiling(void)
{
	struct buffer b;

	buffer_init(&b, 10);
	CHECK(buffer_append(&b, "12345678", 8) && !buffer_append(&b, "123", 3));
	CHECK(b.failed && b.length == 8 && !buffer_append(&b, "1", 1));
	buffer_free(&b);
}

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 31 + (offset >> 8));
}

static void check_content(const struct spool *s)
{
	static uint8_t got[8192];
	uint64_t end = spool_end(s);
	long count;

	for (uint64_t at = s->base; at < end; at += (uint64_t)count) {
		count = spool_read(s, at, got, sizeof(got));
		CHECK(count > 0);
		for (long i = 0; i < count; i++)
			CHECK(got[i] == byte_at(at + (uint64_t)i));
	}
}

static void put_next(struct spool *s, size_t count)
{
	uint8_t bytes[3000];

	for (size_t i = 0; i < count; i++)
		bytes[i] = byte_at(spool_end(s) + i);
	CHECK(spool_append(s, bytes, count));
}

static int plain_file(void)
{
	char path[] = "/tmp/slipway-spool-XXXXXX";
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	unlink(path);
	return fd;
}

/* Memory and file rings wrap at different places; every byte comes back. */
static void spool_keeps_order_across_memory_and_file(void)
{
	struct spool s;
	unsigned state = 1;

	CHECK(spool_init(&s, 1000));
	spool_set_file(&s, plain_file(), 7777);
	for (int i = 0; i < 3000; i++) {
		state = state * 1103515245 + 12345;
		size_t count = (state >> 8) % 3000;

		if (count <= spool_space(&s))
			put_next(&s, count);
		check_content(&s);
		if (s.file_used)
			CHECK(s.memory_used == s.memory_size);
		state = state * 1103515245 + 12345;
		if (state & 0x100)
			spool_release(&s, s.base + (state >> 9) % (spool_end(&s) - s.base + 1));
	}
	CHECK(spool_end(&s) > 100000);
	spool_free(&s);
}

static void spool_refuses_what_does_not_fit(void)
{
	struct spool s;
	uint8_t bytes[64] = { 0 };

	CHECK(spool_init(&s, 100));
	CHECK(spool_append(&s, bytes, 64) && !spool_append(&s, bytes, 64));
	CHECK(spool_space(&s) == 36 && spool_end(&s) == 64);
	spool_release(&s, 64);
	CHECK(spool_space(&s) == 100 && s.base == 64 && s.memory_start == 0);
	spool_free(&s);
}

static void spool_loses_nothing_when_the_file_fails(void)
{
	struct spool s;

	CHECK(spool_init(&s, 100));
	spool_set_file(&s, open("/dev/null", O_RDONLY | O_CLOEXEC), 1000); /* writes fail */
	put_next(&s, 80);
	CHECK(!spool_append(&s, (const uint8_t[40]){ 0 }, 40));
	CHECK(spool_end(&s) == 80);
	check_content(&s);
	spool_free(&s);
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	CHECK(file && fputs(text, file) >= 0 && !fclose(file));
}

static char passwd[64], group[64];

static int resolve(const char *user, char *const *extra, struct identity *who, char error[200])
{
	error[0] = 0;
	return identity_resolve(user, extra, passwd, group, who, error, 200);
}

static void users_as_docker_resolves_them(void)
{
	char *none[] = { NULL }, *extra[] = { "audio", "77", NULL }, *bad[] = { "nope", NULL };
	struct identity who;
	char error[200];

	CHECK(!resolve("", none, &who, error) && who.uid == 0 && !strcmp(who.home, "/root"));
	CHECK(!resolve("app", none, &who, error) && who.uid == 1000 && who.gid == 1001);
	CHECK(who.group_count == 2 && who.groups[0] == 1001 && who.groups[1] == 63);
	CHECK(!strcmp(who.home, "/home/app"));
	CHECK(!resolve("1000", none, &who, error) && who.gid == 1001 && who.group_count == 2);
	CHECK(!resolve("app:audio", none, &who, error) && who.gid == 63 && who.group_count == 1);
	CHECK(!resolve("4711", none, &who, error) && who.uid == 4711 && !who.gid);
	CHECK(!strcmp(who.home, "/"));
	CHECK(!resolve("4711:4712", none, &who, error) && who.gid == 4712);
	CHECK(!resolve("app", extra, &who, error) && who.group_count == 3 && who.groups[2] == 77);
	CHECK(resolve("ghost", none, &who, error) == ENOENT);
	CHECK(!strcmp(error, "unable to find user ghost: no matching entries in passwd file"));
	CHECK(resolve("app:ghost", none, &who, error) == ENOENT);
	CHECK(!strcmp(error, "unable to find group ghost: no matching entries in group file"));
	CHECK(resolve("app", bad, &who, error) == ENOENT);
	CHECK(resolve("2147483648", none, &who, error) == ENOENT);
	CHECK(resolve("-1", none, &who, error) == ENOENT);
}

static void users_survive_hostile_files(void)
{
	char *none[] = { NULL }, error[200];
	struct identity who;
	FILE *file = fopen(passwd, "w");

	CHECK(file);
	for (int i = 0; i < 200000; i++)
		fputc('x', file); /* one endless line */
	fputs("\n::::\nroot\nbad:x:99999999999:0::/:\nok:x:5:6:::\n", file);
	fclose(file);
	CHECK(!resolve("ok", none, &who, error) && who.uid == 5 && !strcmp(who.home, "/"));
	unlink(passwd);
	CHECK(!mkfifo(passwd, 0600));
	CHECK(!resolve("7", none, &who, error) && who.uid == 7);
	unlink(passwd);
	CHECK(!resolve("", none, &who, error) && who.uid == 0);
}

static void users(void)
{
	char directory[] = "/tmp/slipway-users-XXXXXX";

	CHECK(mkdtemp(directory));
	snprintf(passwd, sizeof(passwd), "%s/passwd", directory);
	snprintf(group, sizeof(group), "%s/group", directory);
	write_text(passwd, "root:x:0:0:root:/root:/bin/sh\n# no entry\n"
			   "app:x:1000:1001:App:/home/app:/bin/sh\n");
	write_text(group, "root:x:0:\naudio:x:63:other,app\napp:x:1001:\n");
	users_as_docker_resolves_them();
	users_survive_hostile_files();
	unlink(passwd);
	unlink(group);
	rmdir(directory);
}

static void commands_are_found_as_docker_does(void)
{
	char directory[] = "/tmp/slipway-path-XXXXXX", variable[128], tool[64], path[256];
	char *env[] = { "OTHER=1", variable, NULL }, *empty[] = { NULL };

	CHECK(mkdtemp(directory));
	snprintf(variable, sizeof(variable), "PATH=/nonexistent:%s:/bin", directory);
	snprintf(tool, sizeof(tool), "%s/tool", directory);
	write_text(tool, "");
	CHECK(lookup_command("tool", env, path, sizeof(path)) == ENOENT);
	CHECK(lookup_command(tool, env, path, sizeof(path)) == EACCES);
	CHECK(!chmod(tool, 0755) && !lookup_command("tool", env, path, sizeof(path)));
	CHECK(!strcmp(path, tool));
	CHECK(!lookup_command("sh", env, path, sizeof(path)) && !strcmp(path, "/bin/sh"));
	CHECK(lookup_command("sh", empty, path, sizeof(path)) == ENOENT);
	CHECK(lookup_command("", env, path, sizeof(path)) == ENOENT);
	CHECK(lookup_command(directory, env, path, sizeof(path)) == EISDIR);
	CHECK(lookup_command("/no/such", env, path, sizeof(path)) == ENOENT);
	unlink(tool);
	rmdir(directory);
}

int main(void)
{
	RUN(crc_known_values);
	RUN(receiver_byte_by_byte);
	RUN(receiver_ignores_all_but_hello_when_lost);
	RUN(receiver_resynchronises_after_any_tear);
	RUN(fields_round_trip);
	RUN(buffer_keeps_its_ceiling);
	RUN(spool_keeps_order_across_memory_and_file);
	RUN(spool_refuses_what_does_not_fit);
	RUN(spool_loses_nothing_when_the_file_fails);
	RUN(users);
	RUN(commands_are_found_as_docker_does);
	return 0;
}
