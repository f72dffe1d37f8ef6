#include "processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fields.h"
#include "protocol.h"

#define STAT_SIZE 512
#define STATUS_SIZE 2048
#define ARGUMENTS_SIZE 512
/* What one process takes at most: its texts and the heads of its fields, one argument a byte. */
#define PROCESS_BYTES (STAT_SIZE + ARGUMENTS_SIZE * (1 + FIELD_HEADER_SIZE_BYTES) / 2 + 128)
#define DEPTH 8 /* of cgroups that a privileged container makes */

static size_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t count = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[count > 0 ? count : 0] = 0;
	return count > 0 ? (size_t)count : 0;
}

/* The real user, as /proc/PID/status shows it: "Uid:" and four numbers. */
static void put_user(struct buffer *result, const char *status)
{
	const char *at = strstr(status, "\nUid:");
	char text[24];

	snprintf(text, sizeof(text), "%lu", at ? strtoul(at + 5, NULL, 10) : 0ul);
	put_string(result, TAG_USER, text);
}

static void put_arguments(struct buffer *result, const char *text, size_t length)
{
	for (size_t at = 0; at < length; at += strlen(text + at) + 1)
		put_string(result, TAG_ARG, text + at);
}

static void put_process(struct buffer *result, unsigned long pid)
{
	char path[48], stat[STAT_SIZE], status[STATUS_SIZE], arguments[ARGUMENTS_SIZE];
	size_t group, length;

	snprintf(path, sizeof(path), "/proc/%lu/stat", pid);
	length = read_text(path, stat, sizeof(stat));
	if (!length)
		return; /* it has just ended */
	snprintf(path, sizeof(path), "/proc/%lu/status", pid);
	read_text(path, status, sizeof(status));
	snprintf(path, sizeof(path), "/proc/%lu/cmdline", pid);
	group = put_open(result, TAG_PROCESS);
	put_number(result, TAG_PID, pid);
	put_user(result, status);
	put_bytes(result, TAG_DATA, stat, length);
	put_arguments(result, arguments, read_text(path, arguments, sizeof(arguments)));
	put_close(result, group);
}

static void put_members(struct buffer *result, int cgroup)
{
	int fd = openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	unsigned long pid;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (result->length + PROCESS_BYTES < result->limit && fscanf(file, "%lu", &pid) == 1)
		put_process(result, pid);
	fclose(file);
}

static void put_tree(struct buffer *result, int cgroup, int depth)
{
	int fd = openat(cgroup, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	put_members(result, cgroup);
	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (depth && (entry = readdir(directory))) {
		int child;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		child = openat(cgroup, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (child < 0)
			continue;
		put_tree(result, child, depth - 1);
		close(child);
	}
	closedir(directory);
}

void processes_put(int cgroup, struct buffer *result)
{
	put_tree(result, cgroup, DEPTH);
}
