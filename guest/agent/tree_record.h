/* Records in the streams of the tree operations (docs/channel.md, Trees): reading and writing them. */
#ifndef SLIPWAY_TREE_RECORD_H
#define SLIPWAY_TREE_RECORD_H

#include <sys/stat.h>
#include <sys/types.h>

#include "fields.h"
#include "protocol.h"

#define TREE_NAME_SIZE 4096 /* with its NUL, as the kernel's PATH_MAX */

struct tree_record {
	unsigned kind;
	const uint8_t *payload;
	size_t length;
};

/* One file, directory or other node. Strings are copies. */
struct tree_entry {
	char name[TREE_NAME_SIZE]; /* relative; "." is the top */
	char link[TREE_NAME_SIZE]; /* of a symbolic or hard link */
	bool is_hard_link;
	mode_t mode; /* with the type */
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	uint64_t size;
	dev_t device;
	struct fields fields; /* for XATTR; valid as long as the record */
};

/* Returns the bytes that the record at the start takes, 0 if it isn't complete, -1 if it is none. */
ssize_t tree_record_parse(const uint8_t *bytes, size_t length, struct tree_record *r);
/* False if it is malformed, or its names would lead out of the tree. */
bool tree_entry_parse(const struct tree_record *r, struct tree_entry *e);
/* The next attribute of an entry: 1, 0 at the end, -1 if it is malformed. `fields` starts as the
 * entry's. */
int tree_xattr_next(struct fields *fields, char name[256], struct field *value);

/* What is to be written, gathered into large writes. */
struct tree_output {
	int fd;
	struct buffer pending;
};

void tree_output_init(struct tree_output *out, int fd);
/* Both exit the process if nobody reads any more. */
void tree_put(struct tree_output *out, unsigned kind, const struct buffer *payload);
void tree_put_data(struct tree_output *out, uint64_t offset, const uint8_t *bytes, size_t count);
/* The last record, with an errno and a message unless it is 0. */
void tree_put_end(struct tree_output *out, int error, const char *message);

/* What is read from a pipe. */
struct tree_input {
	int fd;
	uint8_t *data;
	size_t start;
	size_t used;
};

bool tree_input_init(struct tree_input *in, int fd);
/* 1 with a record, valid until the next call; 0 at the end; -1 if it is malformed or cut off. */
int tree_input_next(struct tree_input *in, struct tree_record *r);

#endif
