/* LIST_CHANGES: what the container's own layer, the overlay's upper directory, changes of those below. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tree.h"

static bool find_below(const struct tree_job *job, const char *name, struct stat *status)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
	int fd, failed;

	if (job->lower < 0)
		return false;
	fd = (int)syscall(SYS_openat2, job->lower, name, &how, sizeof(how));
	failed = fd < 0 || fstat(fd, status);
	if (fd >= 0)
		close(fd);
	return !failed;
}

static bool is_same_directory(const struct stat *one, const struct stat *other)
{
	return S_ISDIR(one->st_mode) && one->st_mode == other->st_mode &&
	       one->st_uid == other->st_uid && one->st_gid == other->st_gid &&
	       one->st_mtim.tv_sec == other->st_mtim.tv_sec;
}

static void put_change(struct tree_job *job, const char *name, const struct stat *status)
{
	bool is_whiteout = S_ISCHR(status->st_mode) && !status->st_rdev;
	struct buffer entry;
	struct stat below;
	uint64_t change = CHANGE_ADDED;

	if (is_whiteout)
		change = CHANGE_DELETED;
	else if (find_below(job, name, &below))
		change = is_same_directory(status, &below) ? CHANGE_SAME : CHANGE_MODIFIED;
	buffer_init(&entry, MAX_TREE_RECORD_BYTES);
	tree_put_entry(&entry, name, status);
	put_number(&entry, TAG_CHANGE, change);
	tree_put(&job->out, TREE_RECORD_ENTRY, &entry);
	buffer_free(&entry);
}

static void walk(struct tree_job *job, int directory, char *name, size_t length)
{
	char **names = tree_names(directory);
	struct stat status;
	size_t more;
	int fd;

	if (!names)
		tree_fail(job, errno, "readdir %s: %s", name, strerror(errno));
	for (size_t i = 0; names[i]; i++) {
		more = strlen(names[i]);
		if (length + more + 2 > TREE_NAME_SIZE)
			tree_fail(job, ENAMETOOLONG, "%s/%s: the path is too long", name, names[i]);
		if (fstatat(directory, names[i], &status, AT_SYMLINK_NOFOLLOW))
			continue; /* it has gone meanwhile */
		if (length)
			name[length] = '/';
		memcpy(name + length + (length > 0), names[i], more + 1);
		put_change(job, name, &status);
		fd = S_ISDIR(status.st_mode) ?
			     openat(directory, names[i],
				    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) :
			     -1;
		if (fd >= 0) {
			walk(job, fd, name, length + more + (length > 0));
			close(fd);
		}
		name[length] = 0;
	}
	tree_names_free(names);
}

void tree_changes(struct tree_job *job)
{
	static char name[TREE_NAME_SIZE];

	walk(job, job->root, name, 0);
	tree_done(job);
}
