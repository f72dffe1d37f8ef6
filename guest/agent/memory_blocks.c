#include "memory_blocks.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_PREFIX "memory"

static bool read_text(int directory, const char *name, char *text, size_t size)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t count = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[count > 0 ? count : 0] = 0;
	return count > 0;
}

uint64_t memory_online_bytes(const char *directory)
{
	DIR *blocks = opendir(directory);
	struct dirent *entry;
	uint64_t count = 0;
	char path[300], text[32];

	if (!blocks)
		return 0;
	while ((entry = readdir(blocks))) {
		if (strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)))
			continue;
		snprintf(path, sizeof(path), "%s/online", entry->d_name);
		count += read_text(dirfd(blocks), path, text, sizeof(text)) && *text == '1';
	}
	if (!read_text(dirfd(blocks), "block_size_bytes", text, sizeof(text)))
		count = 0;
	closedir(blocks);
	return count ? count * strtoull(text, NULL, 16) : 0;
}
