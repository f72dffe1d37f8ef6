#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fields.h"
#include "protocol.h"

#define FILE_SIZE 8192 /* memory.stat has some 1,500 bytes, /proc/meminfo as many */
#define DEFAULT_PERIOD_US 100000 /* the kernel's */

void cgroup_path(const char *container, char path[CGROUP_PATH_SIZE])
{
	snprintf(path, CGROUP_PATH_SIZE, CGROUP_ROOT "/c-%s", container);
}

bool cgroup_enable(void)
{
	int root = open(CGROUP_ROOT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = root < 0 ? errno :
			       cgroup_write(root, "cgroup.subtree_control",
					    "+cpu +io +memory +pids");

	if (root >= 0)
		close(root);
	errno = error;
	return !error;
}

int cgroup_make(const char *container)
{
	char path[CGROUP_PATH_SIZE];

	cgroup_path(container, path);
	/* A start that failed may have left it behind, while its process was still dying. */
	if (mkdir(path, 0755) && (errno != EEXIST || rmdir(path) || mkdir(path, 0755)))
		return -1;
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void cgroup_remove(const char *container)
{
	char path[CGROUP_PATH_SIZE];

	cgroup_path(container, path);
	rmdir(path);
}

int cgroup_write(int cgroup, const char *name, const char *text)
{
	size_t length = strlen(text);
	int fd = openat(cgroup, name, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, length) != (ssize_t)length)
		error = errno;
	close(fd);
	return error;
}

static bool read_file(int directory, const char *name, char text[FILE_SIZE])
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t count = -1, used = 0;

	text[0] = 0;
	if (fd < 0)
		return false;
	while (used < FILE_SIZE - 1 &&
	       (count = read(fd, text + used, (size_t)(FILE_SIZE - 1 - used))) > 0)
		used += count;
	close(fd);
	text[used] = 0;
	return count >= 0;
}

/* The number behind `key` at the beginning of a line. */
static uint64_t number_after(const char *text, const char *key)
{
	size_t length = strlen(key);

	for (; text; text = strchr(text, '\n'), text = text ? text + 1 : NULL)
		if (!strncmp(text, key, length) && (text[length] == ' ' || text[length] == ':'))
			return strtoull(text + length + 1, NULL, 10);
	return 0;
}

uint64_t cgroup_number(int cgroup, const char *name, const char *key)
{
	char text[FILE_SIZE];

	return read_file(cgroup, name, text) ? number_after(text, key) : 0;
}

/* All ones: no limit. */
static int apply_one(int cgroup, const char *name, const struct limit *l, const char **failed)
{
	char text[32];
	int error;

	if (!l->is_set)
		return 0;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)l->value);
	error = cgroup_write(cgroup, name, l->value == UINT64_MAX ? "max" : text);
	if (error == ENOENT && !strcmp(name, "memory.swap.max"))
		return 0; /* a kernel without swap accounting has nothing to limit */
	if (error)
		*failed = name;
	return error;
}

static int apply_cpu(int cgroup, const struct limits *l, const char **failed)
{
	unsigned long long period = DEFAULT_PERIOD_US;
	char now[FILE_SIZE], quota[32], text[64];
	int error;

	if (!l->cpu_quota_us.is_set && !l->cpu_period_us.is_set)
		return 0;
	if (!read_file(cgroup, "cpu.max", now) || sscanf(now, "%31s %llu", quota, &period) != 2)
		strcpy(quota, "max");
	if (l->cpu_period_us.is_set)
		period = l->cpu_period_us.value;
	if (l->cpu_quota_us.is_set && l->cpu_quota_us.value == UINT64_MAX)
		strcpy(quota, "max");
	else if (l->cpu_quota_us.is_set)
		snprintf(quota, sizeof(quota), "%llu", (unsigned long long)l->cpu_quota_us.value);
	snprintf(text, sizeof(text), "%s %llu", quota, period);
	error = cgroup_write(cgroup, "cpu.max", text);
	if (error)
		*failed = "cpu.max";
	return error;
}

int cgroup_apply(int cgroup, const struct limits *l, const char **failed)
{
	int error = apply_one(cgroup, "memory.max", &l->memory_max_bytes, failed);

	if (!error)
		error = apply_one(cgroup, "memory.swap.max", &l->memory_swap_max_bytes, failed);
	if (!error)
		error = apply_cpu(cgroup, l, failed);
	if (!error)
		error = apply_one(cgroup, "cpu.weight", &l->cpu_weight, failed);
	if (!error)
		error = apply_one(cgroup, "pids.max", &l->pids_max, failed);
	return error;
}

static void put_io(int cgroup, struct buffer *result)
{
	uint64_t sums[2] = { 0, 0 };
	static const char *const keys[] = { " rbytes=", " wbytes=" };
	char text[FILE_SIZE];

	read_file(cgroup, "io.stat", text);
	for (int i = 0; i < 2; i++)
		for (const char *at = text; (at = strstr(at, keys[i])); at += strlen(keys[i]))
			sums[i] += strtoull(at + strlen(keys[i]), NULL, 10);
	put_number(result, TAG_STAT_IO_READ_BYTES, sums[0]);
	put_number(result, TAG_STAT_IO_WRITE_BYTES, sums[1]);
}

static uint64_t single(int cgroup, const char *name)
{
	char text[FILE_SIZE];

	/* "max" is no number: 0, no limit. */
	return read_file(cgroup, name, text) ? strtoull(text, NULL, 10) : 0;
}

int cgroup_reclaim(int cgroup, uint64_t bytes, uint64_t *reclaimed)
{
	uint64_t before = single(cgroup, "memory.current"), after;
	char text[32];
	int error;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	error = cgroup_write(cgroup, "memory.reclaim", text);
	after = single(cgroup, "memory.current");
	*reclaimed = before > after ? before - after : 0;
	/* EAGAIN: there was less to be had than asked for. */
	return error == EAGAIN ? 0 : error == ENOENT ? EOPNOTSUPP : error;
}

static void put_guest(struct buffer *result)
{
	static const char *const kernel[] = { "Slab", "KernelStack", "PageTables", "Percpu",
					      "VmallocUsed" };
	char text[FILE_SIZE];
	uint64_t kernel_kib = 0;

	read_file(AT_FDCWD, "/proc/meminfo", text);
	for (size_t i = 0; i < sizeof(kernel) / sizeof(kernel[0]); i++)
		kernel_kib += number_after(text, kernel[i]);
	put_number(result, TAG_STAT_GUEST_MEMORY_TOTAL_BYTES, number_after(text, "MemTotal") * 1024);
	put_number(result, TAG_STAT_GUEST_MEMORY_AVAILABLE_BYTES,
		   number_after(text, "MemAvailable") * 1024);
	put_number(result, TAG_STAT_GUEST_CACHE_BYTES,
		   (number_after(text, "Cached") + number_after(text, "Buffers")) * 1024);
	put_number(result, TAG_STAT_GUEST_KERNEL_BYTES, kernel_kib * 1024);
}

void cgroup_stats(int cgroup, struct buffer *result)
{
	char text[FILE_SIZE];

	read_file(cgroup, "cpu.stat", text);
	put_number(result, TAG_STAT_CPU_US, number_after(text, "usage_usec"));
	put_number(result, TAG_STAT_CPU_USER_US, number_after(text, "user_usec"));
	put_number(result, TAG_STAT_CPU_SYSTEM_US, number_after(text, "system_usec"));
	put_number(result, TAG_STAT_MEMORY_BYTES, single(cgroup, "memory.current"));
	read_file(cgroup, "memory.stat", text);
	put_number(result, TAG_STAT_MEMORY_ANON_BYTES, number_after(text, "anon"));
	put_number(result, TAG_STAT_MEMORY_FILE_BYTES, number_after(text, "file"));
	put_number(result, TAG_STAT_MEMORY_LIMIT_BYTES, single(cgroup, "memory.max"));
	put_number(result, TAG_STAT_PIDS, single(cgroup, "pids.current"));
	put_io(cgroup, result);
	put_number(result, TAG_STAT_OOM_KILLS, cgroup_number(cgroup, "memory.events", "oom_kill"));
	put_guest(result);
}
