/* Starting a process: the agent's side (launch.c) and the process's own (child.c). */
#ifndef SLIPWAY_LAUNCH_H
#define SLIPWAY_LAUNCH_H

#include "control.h"
#include "process.h"
#include "spec.h"

/* What the new process gets to know; a fork, so that pointers stay valid. */
struct launch {
	struct container *container;
	const struct create_spec *create; /* NULL for EXEC */
	const struct process_spec *process;
	pid_t init_pid; /* EXEC: whose namespaces to join */
	int control;
	int stdio[3]; /* -1: /dev/null, or the terminal */
	bool use_init;
	const struct sock_filter *seccomp;
	size_t seccomp_count;
};

/* All answer `request` themselves, now or later. */
void launch_create(uint64_t request, const char *id, const struct create_spec *s);
void launch_start(uint64_t request, struct container *c);
void launch_exec(uint64_t request, struct container *c, const char *id,
		 const struct process_spec *s);
/* Handles what the process has reported so far. `has_ended`: nothing more will come. May free `p`. */
void launch_news(struct process *p, bool has_ended);

/* The process's side; runs in the child after the fork and ends in execve or exit. */
_Noreturn void child_main(struct launch *l);
/* Reports an error with the text made from `format` and exits. */
_Noreturn void child_fail(const struct launch *l, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void child_report(const struct launch *l, enum control_kind kind, uint64_t value,
		  const char *text, const int *fds, int fd_count);

#endif
