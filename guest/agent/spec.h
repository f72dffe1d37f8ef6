/* CREATE's and EXEC's fields as plain structures, checked; strings are NUL-terminated copies. */
#ifndef SLIPWAY_SPEC_H
#define SLIPWAY_SPEC_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fields.h"

#define ID_SIZE 65 /* with its NUL */
#define MAX_RLIMITS 16

struct strings {
	char **items; /* ends with NULL; room for one more before it */
	size_t count;
};

struct limit {
	bool is_set;
	uint64_t value;
};

struct limits {
	struct limit memory_max_bytes;
	struct limit memory_swap_max_bytes;
	struct limit cpu_quota_us;
	struct limit cpu_period_us;
	struct limit cpu_weight;
	struct limit pids_max;
};

struct rlimit_spec {
	uint64_t resource;
	uint64_t soft;
	uint64_t hard;
};

struct process_spec {
	struct strings args;
	struct strings env;
	const char *cwd;
	const char *user;
	struct strings groups;
	bool tty;
	uint16_t rows;
	uint16_t columns;
	uint32_t stdin_stream;
	uint32_t output_stream;
	uint64_t capabilities;
	bool no_new_privileges;
	struct rlimit_spec rlimits[MAX_RLIMITS];
	size_t rlimit_count;
	int oom_score_adj;
};

/* A file, tmpfs or sysctl: what they need of path (or name), data (or options, value), mode. */
struct item {
	const char *name;
	const uint8_t *data; /* followed by a NUL that `length` doesn't count */
	size_t length;
	uint32_t mode;
};

/* What a container may do with a device. */
#define DEVICE_READ 4
#define DEVICE_WRITE 2
#define DEVICE_MAKE 1

struct items {
	struct item *items;
	size_t count;
};

struct create_spec {
	const char *container;
	const char *hostname;
	const char *domainname;
	struct strings layers;
	const char *scratch;
	uint64_t spill_bytes;
	bool read_only_root;
	bool init;
	struct limits limits;
	const struct sock_filter *seccomp;
	size_t seccomp_count;
	struct strings masked_paths;
	struct strings read_only_paths;
	struct items tmpfs;
	uint64_t shm_bytes;
	struct items files;
	struct items sysctls;
	bool privileged;
	struct items devices; /* name: in the guest's /dev; data: path in the container; mode: DEVICE_ bits */
	struct process_spec process;
};

/* Owns the copies; the structures above point into it. */
struct arena {
	uint8_t *memory;
	size_t size;
	size_t used;
	char error[160]; /* what is wrong, for the operator */
};

bool arena_init(struct arena *a, size_t message_length);
void arena_free(struct arena *a);
/* Both false with `a->error` set if the message is not well formed. */
bool create_spec_parse(struct fields f, struct arena *a, struct create_spec *s);
bool process_spec_parse(struct fields f, struct arena *a, struct process_spec *s);
bool limits_parse(struct fields f, struct limits *l);
/* 1 to 64 characters of [A-Za-z0-9_.-], the first a letter or digit; copied to `to`. */
bool id_parse(struct fields f, uint16_t tag, char to[ID_SIZE]);
/* `to` zeroed by the caller. */
bool strings_parse(struct fields f, struct arena *a, uint16_t tag, struct strings *to);
bool number_parse(struct fields f, uint16_t tag, uint64_t *value);

/* Whether the same layer comes again above: that one hides all of it, and overlayfs takes the two for a
 * loop. */
bool layer_is_hidden(const struct strings *layers, size_t i);

#endif
