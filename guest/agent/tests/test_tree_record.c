/* Unit tests of the tree operations' records. One line per test on stdout. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "tree_record.h"

static struct tree_entry entry;

static bool parses(const char *name, uint64_t mode, uint16_t tag, uint64_t number, const char *link)
{
	struct tree_record r = { .kind = TREE_RECORD_ENTRY };
	struct buffer b;
	bool parsed;

	buffer_init(&b, MAX_TREE_RECORD_BYTES);
	put_string(&b, TAG_NAME, name);
	put_number(&b, TAG_MODE, mode);
	if (tag)
		put_number(&b, tag, number);
	if (link)
		put_string(&b, TAG_LINK, link);
	CHECK(!b.failed);
	r.payload = b.data;
	r.length = b.length;
	parsed = tree_entry_parse(&r, &entry);
	buffer_free(&b);
	return parsed;
}

static void names_stay_inside(void)
{
	CHECK(parses("a/b", S_IFREG | 0644, 0, 0, NULL));
	CHECK(parses("a..b/..c", S_IFREG | 0644, 0, 0, NULL));
	CHECK(!parses("..", S_IFDIR, 0, 0, NULL));
	CHECK(!parses("../a", S_IFREG, 0, 0, NULL));
	CHECK(!parses("a/../b", S_IFREG, 0, 0, NULL));
	CHECK(!parses("a/..", S_IFREG, 0, 0, NULL));
	CHECK(!parses("/a", S_IFREG, 0, 0, NULL));
	CHECK(!parses("", S_IFREG, 0, 0, NULL));
}

static void links_of_both_kinds(void)
{
	CHECK(parses("a", S_IFLNK | 0777, 0, 0, "/../../etc"));
	CHECK(!parses("a", S_IFLNK | 0777, 0, 0, NULL));
	CHECK(parses("a", S_IFREG, TAG_IS_HARD_LINK, 1, "b/c"));
	CHECK(!parses("a", S_IFREG, TAG_IS_HARD_LINK, 1, "../b"));
	CHECK(!parses("a", S_IFREG, TAG_IS_HARD_LINK, 1, NULL));
	CHECK(!parses("a", S_IFREG, TAG_IS_HARD_LINK, 2, "b"));
}

static void numbers_within_bounds(void)
{
	CHECK(parses("a", S_IFREG, TAG_UID, UINT32_MAX - 1ull, NULL) && entry.uid == UINT32_MAX - 1);
	CHECK(!parses("a", S_IFREG, TAG_UID, UINT32_MAX, NULL));
	CHECK(!parses("a", S_IFREG, TAG_SIZE_BYTES, 1ull << 63, NULL));
	CHECK(!parses("a", S_IFREG, TAG_TIME_NS, 1ull << 63, NULL));
	CHECK(!parses("a", S_IFSOCK, 0, 0, NULL));
	CHECK(!parses("a", 1 << 16 | S_IFREG, 0, 0, NULL));
	CHECK(parses("a", S_IFCHR, TAG_DEVICE_NUMBER, 1ull << 32 | 3, NULL));
	CHECK(parses("a", S_IFREG, TAG_TIME_NS, 1000000007ull, NULL) && entry.mtime.tv_sec == 1 &&
	      entry.mtime.tv_nsec == 7);
}

static void records_through_a_pipe(void)
{
	struct tree_output out;
	struct tree_input in;
	struct tree_record r;
	int ends[2];

	CHECK(!pipe(ends));
	tree_output_init(&out, ends[1]);
	tree_put_data(&out, 7, (const uint8_t *)"abc", 3);
	tree_put_end(&out, 5, "no");
	close(ends[1]);
	CHECK(tree_input_init(&in, ends[0]));
	CHECK(tree_input_next(&in, &r) == 1 && r.kind == TREE_RECORD_DATA && r.length == 11);
	CHECK(get_u64(r.payload) == 7 && !memcmp(r.payload + 8, "abc", 3));
	CHECK(tree_input_next(&in, &r) == 1 && r.kind == TREE_RECORD_END);
	CHECK(tree_input_next(&in, &r) == 0);
	free(in.data);
	buffer_free(&out.pending);
	close(ends[0]);
}

static void what_is_cut_off_is_malformed(void)
{
	static const uint8_t whole[] = { 2, 0, 0, 0, TREE_RECORD_DATA, 0, 0, 0, 1, 2 };
	struct tree_record r;

	for (size_t length = 0; length < sizeof(whole); length++)
		CHECK(!tree_record_parse(whole, length, &r));
	CHECK(tree_record_parse(whole, sizeof(whole), &r) == (ssize_t)sizeof(whole));
	for (size_t at = 3; at < 8; at++) {
		uint8_t broken[sizeof(whole)];

		memcpy(broken, whole, sizeof(whole));
		broken[at] = 0x7f;
		CHECK(tree_record_parse(broken, sizeof(broken), &r) == -1);
	}
}

int main(void)
{
	RUN(names_stay_inside);
	RUN(links_of_both_kinds);
	RUN(numbers_within_bounds);
	RUN(records_through_a_pipe);
	RUN(what_is_cut_off_is_malformed);
	return 0;
}
