/* What differs between the guest (platform_guest.c and what it uses) and an ordinary process for tests
 * (platform_native.c): a build has one of the two. */
#ifndef SLIPWAY_PLATFORM_H
#define SLIPWAY_PLATFORM_H

#include "launch.h"
#include "process.h"

/* The agent's side. Functions that return int: 0 or an errno, with a text in `error`. */
#define ERROR_SIZE 240

int platform_container_open(struct container *c, const struct create_spec *s, char *error);
void platform_container_close(struct container *c);
/* Forks; for a container's first process into new namespaces, always into its cgroup. */
pid_t platform_fork(struct container *c, bool is_init);
/* A directory on the scratch disk; taken over. */
void platform_scratch(struct container *c, int directory);
void platform_kill(struct container *c);
/* Writes back the container's file systems without blocking, then calls container_synced(). */
void platform_sync(struct container *c);
void container_synced(struct container *c);
uint64_t platform_oom_kills(struct container *c);
/* Answers the request itself once the cgroup is frozen, or returns an errno. */
int platform_freeze(struct container *c, uint64_t request, char *error);
int platform_thaw(struct container *c, char *error);
int platform_update(struct container *c, const struct limits *l, char *error);
int platform_stats(struct container *c, struct buffer *result, char *error);
int platform_processes(struct container *c, struct buffer *result, char *error);
int platform_set_clock(uint64_t time_ns, char *error);
int platform_seed(const uint8_t *bytes, size_t count, char *error);
/* Answer the request themselves, or return an errno. */
int platform_quiesce(uint64_t request, char *error);
int platform_await_memory(uint64_t request, uint64_t bytes, char *error);
int platform_reclaim(struct container *c, uint64_t request, uint64_t bytes, char *error);
void platform_power_off(void);

/* The process's side. */
/* Mounts, joins or makes everything the container's processes see; for EXEC it may fork, and returns
 * in the process that shall be executed. */
void platform_enter(struct launch *l);
/* A new terminal in the container; `*slave` is open afterwards. */
void platform_terminal(struct launch *l, int *master, int *slave);
/* User, groups, capabilities, seccomp, limits; the next is execve. May put HOME into the
 * environment. */
void platform_secure(struct launch *l);
/* Opens the directory that a tree operation works in; joins what it must for that. 0 or an errno. */
int platform_tree_root(const struct container *c, unsigned view, int *root, char *error);
/* Where the agent's own binary can be executed from, for --init. */
int platform_agent_fd(void);

#endif
