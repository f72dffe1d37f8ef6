/* STAT_PATH, READ_TREE, WRITE_TREE and LIST_CHANGES: each a process of its own, since every look at a
 * file may block. */
#ifndef SLIPWAY_TREE_H
#define SLIPWAY_TREE_H

#include "process.h"
#include "tree_record.h"

struct tree_job {
	uint64_t op;
	const struct container *container;
	char path[TREE_NAME_SIZE]; /* absolute */
	uint64_t view; /* TREE_VIEW_ */
	bool follow; /* the last part too, if it is a link */
	bool keep_kinds; /* no directory in place of a file, nor the other way round */
	struct strings layers;
	/* In the child: */
	int root; /* directory that every path is resolved in */
	int lower; /* LIST_CHANGES: what lies below the container's own layer; -1 for nothing */
	int links; /* /proc/self/fd, to learn where a path has led */
	struct tree_output out;
	struct tree_input in;
};

/* Starts what the request asks for. 0 or an errno, with a text in `error`. */
int tree_begin(struct container *c, struct fields f, char *error);

/* In the child. They end the process with the last record. */
_Noreturn void tree_stat(struct tree_job *job);
_Noreturn void tree_read(struct tree_job *job);
_Noreturn void tree_write(struct tree_job *job);
_Noreturn void tree_changes(struct tree_job *job);
_Noreturn void tree_fail(struct tree_job *job, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void tree_done(struct tree_job *job);

/* openat2 inside the root: absolute paths, links and ".." stay in it. */
int tree_open(const struct tree_job *job, const char *path, int flags);
/* The directory that `path` lies in, and its last part. */
int tree_open_parent(const struct tree_job *job, const char *path, const char **last);
/* The names in an open directory, sorted; the array ends with NULL. NULL with errno. */
char **tree_names(int directory);
void tree_names_free(char **names);

/* An entry record's beginning: what lstat says. */
void tree_put_entry(struct buffer *to, const char *name, const struct stat *status);

/* The layers together, as they are without the container's own changes; mounted in a namespace of this
 * process. -1 without layers; ends the process if they can't be mounted. */
int lower_open(struct tree_job *job);

#endif
