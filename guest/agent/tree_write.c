/* WRITE_TREE: entries made below a directory of the container, as tar does it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tree.h"

#define IMPLIED_DIRECTORY_MODE 0755

/* Times of directories change with every entry in them: they are set at the end. */
struct late_time {
	struct late_time *next;
	struct timespec mtime;
	char path[];
};

struct writer {
	struct tree_job *job;
	struct tree_entry entry;
	char path[2 * TREE_NAME_SIZE]; /* of the entry, in the container */
	int file; /* the file that DATA goes to; -1: none */
	uint8_t *kept; /* the fields of its entry, which are needed after its data */
	struct late_time *late;
};

_Noreturn static void failed(struct writer *w, const char *what)
{
	tree_fail(w->job, errno, "%s %s: %s", what, w->path, strerror(errno));
}

/* The path of `name` below the directory that is written into. */
static void set_path(struct writer *w, const char *name)
{
	const char *base = w->job->path;
	size_t length = strlen(base);

	while (length && base[length - 1] == '/')
		length--;
	while (!strncmp(name, "./", 2))
		name += 2;
	snprintf(w->path, sizeof(w->path), "%.*s/%s", (int)length, base, name);
	length = strlen(w->path);
	while (length > 1 && w->path[length - 1] == '/')
		w->path[--length] = 0;
	if (length >= TREE_NAME_SIZE)
		tree_fail(w->job, ENAMETOOLONG, "%s: file name too long", name);
}

/* Makes what is missing on the way to the entry. */
static void make_parents(struct writer *w)
{
	char part[TREE_NAME_SIZE];
	const char *last;
	int fd, parent;

	for (const char *at = strchr(w->path + 1, '/'); at; at = strchr(at + 1, '/')) {
		memcpy(part, w->path, (size_t)(at - w->path));
		part[at - w->path] = 0;
		fd = tree_open(w->job, part, O_PATH | O_DIRECTORY);
		if (fd < 0 && errno != ENOENT)
			failed(w, "open the directory of");
		if (fd >= 0) {
			close(fd);
			continue;
		}
		parent = tree_open_parent(w->job, part, &last);
		if (parent < 0 || (mkdirat(parent, last, IMPLIED_DIRECTORY_MODE) && errno != EEXIST))
			failed(w, "mkdir for");
		close(parent);
	}
}

static int open_parent(struct writer *w, const char **last)
{
	int fd = tree_open_parent(w->job, w->path, last);

	if (fd < 0 && errno == ENOENT) {
		make_parents(w);
		fd = tree_open_parent(w->job, w->path, last);
	}
	if (fd < 0)
		failed(w, "open the directory of");
	return fd;
}

static void remove_tree(struct writer *w, int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char **names = fd < 0 ? NULL : tree_names(fd);

	if (!names)
		failed(w, "remove");
	for (size_t i = 0; names[i]; i++)
		if (unlinkat(fd, names[i], 0)) {
			if (errno != EISDIR)
				failed(w, "remove");
			remove_tree(w, fd, names[i]);
		}
	tree_names_free(names);
	close(fd);
	if (unlinkat(parent, name, AT_REMOVEDIR))
		failed(w, "remove");
}

/* Takes away what is in the way. True if there is a directory, and one is wanted. */
static bool clear_way(struct writer *w, int parent, const char *last)
{
	bool wants_directory = S_ISDIR(w->entry.mode) && !w->entry.is_hard_link;
	struct stat status;

	if (fstatat(parent, last, &status, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			failed(w, "lstat");
		return false;
	}
	if (S_ISDIR(status.st_mode) && wants_directory)
		return true;
	if (w->job->keep_kinds && S_ISDIR(status.st_mode))
		tree_fail(w->job, EISDIR, "cannot overwrite directory \"%s\" with non-directory \"%s\"",
			  w->path, w->job->path);
	if (w->job->keep_kinds && wants_directory)
		tree_fail(w->job, ENOTDIR,
			  "cannot overwrite non-directory \"%s\" with directory \"%s\"", w->path,
			  w->job->path);
	if (S_ISDIR(status.st_mode))
		remove_tree(w, parent, last);
	else if (unlinkat(parent, last, 0))
		failed(w, "remove");
	return false;
}

/* What the file system can't keep is left out, as Docker does. */
static void set_xattrs(struct writer *w, int fd)
{
	struct fields fields = w->entry.fields;
	struct field value;
	char name[256];
	int got;

	while ((got = tree_xattr_next(&fields, name, &value)) > 0)
		if (fsetxattr(fd, name, value.data, value.length, 0) && errno != EOPNOTSUPP &&
		    errno != EPERM)
			failed(w, "set an extended attribute of");
	if (got < 0)
		tree_fail(w->job, EINVAL, "%s: an extended attribute is malformed", w->path);
}

static void set_times(struct writer *w, int parent, const char *last)
{
	struct timespec times[2] = { w->entry.mtime, w->entry.mtime };

	if (utimensat(parent, last, times, AT_SYMLINK_NOFOLLOW))
		failed(w, "set the time of");
}

static void remember_time(struct writer *w)
{
	size_t size = strlen(w->path) + 1;
	struct late_time *late = malloc(sizeof(*late) + size);

	if (!late)
		tree_fail(w->job, ENOMEM, "out of memory");
	late->mtime = w->entry.mtime;
	memcpy(late->path, w->path, size);
	late->next = w->late;
	w->late = late;
}

/* Owner before mode: chown takes set-user-id away, and capabilities. */
static void set_owner_and_mode(struct writer *w, int fd)
{
	if (fchown(fd, w->entry.uid, w->entry.gid))
		failed(w, "lchown");
	if (fchmod(fd, w->entry.mode & 07777))
		failed(w, "chmod");
	set_xattrs(w, fd);
}

static void write_directory(struct writer *w, int parent, const char *last, bool is_there)
{
	int fd;

	if (!is_there && mkdirat(parent, last, 0700))
		failed(w, "mkdir");
	fd = openat(parent, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		failed(w, "open");
	set_owner_and_mode(w, fd);
	close(fd);
	remember_time(w);
}

static void begin_file(struct writer *w, int parent, const char *last)
{
	w->file = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (w->file < 0)
		failed(w, "open");
	if (w->entry.size && ftruncate(w->file, (off_t)w->entry.size))
		failed(w, "write");
	w->kept = malloc(w->entry.fields.left + 1);
	if (!w->kept)
		tree_fail(w->job, ENOMEM, "out of memory");
	memcpy(w->kept, w->entry.fields.at, w->entry.fields.left);
	w->entry.fields.at = w->kept;
}

static void end_file(struct writer *w)
{
	struct timespec times[2] = { w->entry.mtime, w->entry.mtime };

	if (w->file < 0)
		return;
	set_owner_and_mode(w, w->file);
	if (futimens(w->file, times) || close(w->file))
		failed(w, "write");
	w->file = -1;
	free(w->kept);
	w->kept = NULL;
}

static void write_link(struct writer *w, int parent, const char *last)
{
	char path[sizeof(w->path)];
	int fd;

	strcpy(path, w->path);
	set_path(w, w->entry.link);
	fd = tree_open(w->job, w->path, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		failed(w, "link to");
	strcpy(w->path, path);
	if (linkat(fd, "", parent, last, AT_EMPTY_PATH))
		failed(w, "link");
	close(fd);
}

static void write_other(struct writer *w, int parent, const char *last)
{
	const struct tree_entry *e = &w->entry;

	if (S_ISLNK(e->mode) ? symlinkat(e->link, parent, last) :
			       mknodat(parent, last, e->mode & (S_IFMT | 07777), e->device))
		failed(w, S_ISLNK(e->mode) ? "symlink" : "mknod");
	if (fchownat(parent, last, e->uid, e->gid, AT_SYMLINK_NOFOLLOW))
		failed(w, "lchown");
	/* Again, since chown takes bits away; nothing that can be opened without harm. */
	if (!S_ISLNK(e->mode) && fchmodat(parent, last, e->mode & 07777, 0))
		failed(w, "chmod");
	set_times(w, parent, last);
}

static void write_entry(struct writer *w)
{
	const char *last;
	bool is_there;
	int parent;

	set_path(w, w->entry.name);
	if (!strcmp(w->entry.name, ".") || !strcmp(w->entry.name, "./"))
		return; /* the directory itself stays as it is */
	parent = open_parent(w, &last);
	is_there = clear_way(w, parent, last);
	if (w->entry.is_hard_link)
		write_link(w, parent, last);
	else if (S_ISDIR(w->entry.mode))
		write_directory(w, parent, last, is_there);
	else if (S_ISREG(w->entry.mode))
		begin_file(w, parent, last);
	else
		write_other(w, parent, last);
	close(parent);
}

static void write_data(struct writer *w, const struct tree_record *r)
{
	const uint8_t *at = r->payload + 8;
	size_t left;
	uint64_t offset;
	ssize_t count;

	if (r->length < 8 || w->file < 0)
		tree_fail(w->job, EINVAL, "data that belongs to no file");
	left = r->length - 8;
	offset = get_u64(r->payload);
	if (offset > w->entry.size || left > w->entry.size - offset)
		tree_fail(w->job, EINVAL, "%s: data beyond its end", w->path);
	for (; left; left -= (size_t)count, at += count, offset += (uint64_t)count) {
		count = pwrite(w->file, at, left, (off_t)offset);
		if (count < 0)
			failed(w, "write");
	}
}

/* A directory that something else was put in the place of has no time to set. */
static void set_late_times(struct writer *w)
{
	for (struct late_time *late = w->late; late; late = late->next) {
		struct timespec times[2] = { late->mtime, late->mtime };
		int fd = tree_open(w->job, late->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

		if (fd < 0)
			continue;
		futimens(fd, times);
		close(fd);
	}
}

static void check_target(struct tree_job *job)
{
	struct stat status;
	int fd = tree_open(job, job->path, O_PATH);

	if (fd < 0 || fstat(fd, &status))
		tree_fail(job, errno, "lstat %s: %s", job->path, strerror(errno));
	if (!S_ISDIR(status.st_mode))
		tree_fail(job, ENOTDIR, "extraction point is not a directory");
	close(fd);
}

void tree_write(struct tree_job *job)
{
	static struct writer writer = { .file = -1 };
	struct tree_record record;
	int got;

	writer.job = job;
	check_target(job);
	while ((got = tree_input_next(&job->in, &record)) > 0 && record.kind != TREE_RECORD_END) {
		if (record.kind == TREE_RECORD_DATA) {
			write_data(&writer, &record);
			continue;
		}
		end_file(&writer);
		if (!tree_entry_parse(&record, &writer.entry))
			tree_fail(job, EINVAL, "an entry is malformed");
		write_entry(&writer);
	}
	if (got <= 0)
		tree_fail(job, EPIPE, "the entries were cut off");
	end_file(&writer);
	set_late_times(&writer);
	tree_done(job);
}
