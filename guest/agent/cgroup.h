/* cgroup v2: one per container. */
#ifndef SLIPWAY_CGROUP_H
#define SLIPWAY_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "spec.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP_PATH_SIZE 128

/* Where a container's cgroup lies, in the agent's root. */
void cgroup_path(const char *container, char path[CGROUP_PATH_SIZE]);
/* Once at boot: hands the controllers down. False with errno. */
bool cgroup_enable(void);
/* Makes it; a descriptor of its directory, or -1 with errno. */
int cgroup_make(const char *container);
/* Takes up to so many bytes from it (memory.reclaim), blocking; 0 or an errno. `*reclaimed` is what its
 * use has fallen by. */
int cgroup_reclaim(int cgroup, uint64_t bytes, uint64_t *reclaimed);
void cgroup_remove(const char *container);
/* Both 0 or an errno; `name` is a file in the cgroup. */
int cgroup_write(int cgroup, const char *name, const char *text);
int cgroup_apply(int cgroup, const struct limits *l, const char **failed);
/* The number after `key` in a file of "key number" lines; 0 if there is none. */
uint64_t cgroup_number(int cgroup, const char *name, const char *key);
/* Writes the STAT_ fields that come from the cgroup, and those of the whole guest. */
void cgroup_stats(int cgroup, struct buffer *result);

#endif
