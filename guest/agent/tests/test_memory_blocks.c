/* Counting memory that is online. One line per test on stdout. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "memory_blocks.h"

static void put_file(int directory, const char *path, const char *text)
{
	int fd = openat(directory, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void memory_counts_what_is_online(void)
{
	static const char *const names[] = { "memory0/online", "memory1/online", "memory40/online",
					     "block_size_bytes", "auto_online_blocks" };
	static const char *const directories[] = { "memory0", "memory1", "memory40", "power" };
	char path[] = "/tmp/slipway-memory-XXXXXX";
	int fd;

	CHECK(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	for (int i = 0; i < 4; i++)
		CHECK(!mkdirat(fd, directories[i], 0700));
	put_file(fd, "auto_online_blocks", "online\n");
	put_file(fd, "memory0/online", "1\n");
	put_file(fd, "memory1/online", "0\n");
	CHECK(memory_online_bytes(path) == 0); /* no block size */
	put_file(fd, "block_size_bytes", "8000000\n");
	CHECK(memory_online_bytes(path) == 128u << 20); /* one, and one without a state */
	put_file(fd, "memory40/online", "1\n");
	CHECK(memory_online_bytes(path) == 256u << 20);
	for (int i = 0; i < 5; i++)
		CHECK(!unlinkat(fd, names[i], 0));
	for (int i = 0; i < 4; i++)
		CHECK(!unlinkat(fd, directories[i], AT_REMOVEDIR));
	close(fd);
	CHECK(!rmdir(path));
	CHECK(memory_online_bytes(path) == 0);
}

int main(void)
{
	RUN(memory_counts_what_is_online);
	return 0;
}
