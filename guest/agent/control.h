/* Reports from a process being set up to the agent: one SOCK_SEQPACKET message each. The agent learns
 * the sender's pid from the kernel (SCM_CREDENTIALS), which translates it between pid namespaces. */
#ifndef SLIPWAY_CONTROL_H
#define SLIPWAY_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum control_kind {
	CONTROL_PID = 1, /* first message of the process itself */
	CONTROL_STAGE, /* text, value: nanoseconds since boot */
	CONTROL_TERMINAL, /* fd: the pty's master */
	CONTROL_SCRATCH, /* fds: directory on the scratch disk; its spool file (if any), value: its size */
	CONTROL_READY, /* set up, waiting for START */
	CONTROL_EXECUTING, /* execve comes next; if it succeeds the socket closes */
	CONTROL_ERROR, /* error, text: set-up or execve failed */
};

#define CONTROL_FDS 2

struct control_message {
	uint32_t kind;
	int32_t error;
	uint64_t value;
	char text[304];
};

struct control_received {
	struct control_message message;
	pid_t pid;
	int fds[CONTROL_FDS]; /* -1: none */
};

/* ends[0] for the agent (non-blocking), ends[1] for the process. */
bool control_pair(int ends[2]);
bool control_send(int fd, const struct control_message *m, const int *fds, int fd_count);
/* 1 with a message, 0 at the end, -1 if there is none now. */
int control_receive(int fd, struct control_received *r);

#endif
