/* STAT_PATH and READ_TREE: what a path names, and everything in it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tree.h"

#define XATTR_LIST_BYTES 65536
#define XATTR_VALUE_BYTES 65536
#define OPAQUE "trusted.overlay.opaque"

/* What a program outside of the container has use for; the others are of this kernel and this disk. */
static bool is_kept(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "security.capability") ||
	       !strncmp(name, "system.posix_acl_", 17);
}

static void put_xattr(struct buffer *to, int fd, const char *name)
{
	static uint8_t value[XATTR_VALUE_BYTES];
	ssize_t length = fgetxattr(fd, name, value, sizeof(value));
	size_t group;

	if (length < 0)
		return; /* taken away meanwhile */
	if (!strcmp(name, OPAQUE)) {
		put_number(to, TAG_IS_OPAQUE, length == 1 && value[0] == 'y');
		return;
	}
	group = put_open(to, TAG_XATTR);
	put_string(to, TAG_NAME, name);
	put_bytes(to, TAG_DATA, value, (size_t)length);
	put_close(to, group);
}

static void put_xattrs(struct tree_job *job, struct buffer *to, int fd)
{
	static char list[XATTR_LIST_BYTES];
	ssize_t length = flistxattr(fd, list, sizeof(list));

	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1)
		if (is_kept(list + at) ||
		    (job->view == TREE_VIEW_UPPER && !strcmp(list + at, OPAQUE)))
			put_xattr(to, fd, list + at);
}

static void put_content(struct tree_job *job, int fd, uint64_t size, const char *name)
{
	static uint8_t bytes[MAX_TREE_DATA_BYTES];
	off_t at = 0, end;
	ssize_t count;
	size_t wanted;

	while ((uint64_t)at < size) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			return; /* a hole up to the end */
		if (at < 0 || (uint64_t)at >= size)
			break;
		end = lseek(fd, at, SEEK_HOLE);
		if (end < 0 || (uint64_t)end > size)
			end = (off_t)size;
		for (; at < end; at += count) {
			wanted = (size_t)(end - at) < sizeof(bytes) ? (size_t)(end - at) : sizeof(bytes);
			count = pread(fd, bytes, wanted, at);
			if (count < 0)
				tree_fail(job, errno, "read %s: %s", name, strerror(errno));
			if (!count)
				return; /* it has become shorter */
			tree_put_data(&job->out, (uint64_t)at, bytes, (size_t)count);
		}
	}
}

static void put_link(struct tree_job *job, struct buffer *to, int parent, const char *last)
{
	char target[TREE_NAME_SIZE];
	ssize_t length = readlinkat(parent, last, target, sizeof(target) - 1);

	if (length < 0)
		tree_fail(job, errno, "readlink %s: %s", last, strerror(errno));
	target[length] = 0;
	put_string(to, TAG_LINK, target);
}

static void put(struct tree_job *job, struct buffer *entry)
{
	if (entry->failed)
		tree_fail(job, E2BIG, "the attributes of a file are too long");
	tree_put(&job->out, TREE_RECORD_ENTRY, entry);
	buffer_free(entry);
}

/* They belong to the kernel; what is in them is nobody's files. */
static bool is_of_kernel(int directory)
{
	struct statfs status;

	if (fstatfs(directory, &status))
		return false;
	return status.f_type == PROC_SUPER_MAGIC || status.f_type == SYSFS_MAGIC ||
	       status.f_type == CGROUP2_SUPER_MAGIC || status.f_type == DEVPTS_SUPER_MAGIC;
}

static void read_node(struct tree_job *job, int parent, const char *last, char *name, size_t length);

/* `name` has room for TREE_NAME_SIZE; "" is the top of what is read. */
static void read_directory(struct tree_job *job, int fd, char *name, size_t length)
{
	struct stat status;
	struct buffer entry;
	char **names;
	size_t more;

	buffer_init(&entry, MAX_TREE_RECORD_BYTES);
	if (fstat(fd, &status))
		tree_fail(job, errno, "stat %s: %s", name, strerror(errno));
	tree_put_entry(&entry, length ? name : ".", &status);
	put_xattrs(job, &entry, fd);
	put(job, &entry);
	if (length && is_of_kernel(fd))
		return;
	names = tree_names(fd);
	if (!names)
		tree_fail(job, errno, "readdir %s: %s", name, strerror(errno));
	for (size_t i = 0; names[i]; i++) {
		more = strlen(names[i]);
		if (length + more + 2 > TREE_NAME_SIZE)
			tree_fail(job, ENAMETOOLONG, "%s/%s: the path is too long", name, names[i]);
		if (length)
			name[length] = '/';
		memcpy(name + length + (length > 0), names[i], more + 1);
		read_node(job, fd, names[i], name, length + more + (length > 0));
		name[length] = 0;
	}
	tree_names_free(names);
}

static void read_file(struct tree_job *job, int fd, const char *name)
{
	struct stat status;
	struct buffer entry;

	buffer_init(&entry, MAX_TREE_RECORD_BYTES);
	if (fstat(fd, &status))
		tree_fail(job, errno, "stat %s: %s", name, strerror(errno));
	tree_put_entry(&entry, name, &status);
	put_xattrs(job, &entry, fd);
	put(job, &entry);
	put_content(job, fd, (uint64_t)status.st_size, name);
}

static void read_other(struct tree_job *job, int parent, const char *last, const struct stat *status,
		       const char *name)
{
	struct buffer entry;

	buffer_init(&entry, MAX_TREE_RECORD_BYTES);
	tree_put_entry(&entry, name, status);
	if (S_ISLNK(status->st_mode))
		put_link(job, &entry, parent, last);
	put(job, &entry);
}

/* Only what lstat has called a file or directory is opened: opening a FIFO or a device does things. */
static void read_node(struct tree_job *job, int parent, const char *last, char *name, size_t length)
{
	struct stat status;
	int fd = -1;

	if (fstatat(parent, last, &status, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return; /* it has gone meanwhile */
		tree_fail(job, errno, "lstat %s: %s", name, strerror(errno));
	}
	if (S_ISSOCK(status.st_mode))
		return; /* tar has no sockets */
	if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
		read_other(job, parent, last, &status, name);
		return;
	}
	fd = openat(parent, last, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return;
	if (fd < 0)
		tree_fail(job, errno, "open %s: %s", name, strerror(errno));
	if (fstat(fd, &status))
		tree_fail(job, errno, "stat %s: %s", name, strerror(errno));
	if (S_ISDIR(status.st_mode))
		read_directory(job, fd, name, length);
	else if (S_ISREG(status.st_mode))
		read_file(job, fd, name);
	close(fd);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : ".";
}

/* The top is called "." if it is a directory, else by its own name. */
static void read_top(struct tree_job *job)
{
	static char name[TREE_NAME_SIZE];
	const char *last = base_name(job->path);
	struct stat status;
	int fd;

	if (!job->follow && strcmp(last, ".")) {
		fd = tree_open_parent(job, job->path, &last);
		if (fd < 0 || fstatat(fd, last, &status, AT_SYMLINK_NOFOLLOW))
			tree_fail(job, errno, "lstat %s: %s", job->path, strerror(errno));
		if (!S_ISDIR(status.st_mode)) {
			strcpy(name, last);
			read_node(job, fd, last, name, strlen(name));
			return;
		}
		close(fd);
	}
	fd = tree_open(job, job->path, O_RDONLY | O_DIRECTORY | (job->follow ? 0 : O_NOFOLLOW));
	if (fd < 0)
		tree_fail(job, errno, "open %s: %s", job->path, strerror(errno));
	read_directory(job, fd, name, 0);
}

void tree_read(struct tree_job *job)
{
	read_top(job);
	tree_done(job);
}

/* Where a link leads in the end, as the container calls it; nothing if that is not there. */
static void put_resolved(struct tree_job *job, struct buffer *to)
{
	char number[16], target[TREE_NAME_SIZE];
	int fd = tree_open(job, job->path, O_PATH);
	ssize_t length;

	if (fd < 0)
		return;
	snprintf(number, sizeof(number), "%d", fd);
	length = readlinkat(job->links, number, target, sizeof(target) - 1);
	if (length <= 0 || target[0] != '/')
		return;
	target[length] = 0;
	put_string(to, TAG_LINK, target);
}

void tree_stat(struct tree_job *job)
{
	const char *last = base_name(job->path);
	struct stat status;
	struct buffer entry;
	int fd, failed;

	if (job->follow || !strcmp(last, ".")) {
		fd = tree_open(job, job->path, O_PATH);
		failed = fd < 0 || fstat(fd, &status);
	} else {
		fd = tree_open_parent(job, job->path, &last);
		failed = fd < 0 || fstatat(fd, last, &status, AT_SYMLINK_NOFOLLOW);
	}
	if (failed)
		tree_fail(job, errno, "lstat %s: %s", job->path, strerror(errno));
	buffer_init(&entry, MAX_TREE_RECORD_BYTES);
	tree_put_entry(&entry, last, &status);
	if (S_ISLNK(status.st_mode))
		put_resolved(job, &entry);
	put(job, &entry);
	tree_done(job);
}
