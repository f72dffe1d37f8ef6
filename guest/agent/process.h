/* The containers and their processes.
 *
 *   process: set-up --READY--> created --START, execve--> running --exit--> exited --acknowledged-->
 *   (EXEC goes from set-up to running; a failed set-up leaves nothing.)
 */
#ifndef SLIPWAY_PROCESS_H
#define SLIPWAY_PROCESS_H

#include <sys/types.h>

#include "buffer.h"
#include "loop.h"
#include "spec.h"

#define MAX_PROCESSES 1024
#define PROCESS_STATE_SETUP 0 /* not told to the host */

struct output;
struct input;
struct platform;

struct container {
	struct container *next;
	char id[ID_SIZE];
	struct process *init;
	struct sock_filter *seccomp; /* EXEC gets the same */
	size_t seccomp_count;
	uint64_t spill_bytes;
	unsigned blocked_outputs;
	bool is_frozen;
	bool is_deleting;
	uint64_t delete_request;
	struct platform *platform;
};

struct process {
	struct process *next;
	struct container *container;
	char id[ID_SIZE];
	pid_t pid; /* 0 until it has reported */
	int pidfd;
	unsigned state;
	int exit_code;
	int signal;
	bool oom_killed;
	uint64_t time_ns; /* when it was created, started or ended */
	uint64_t exit_event;
	struct output *output;
	struct input *input;
	int terminal; /* the pty's master, for RESIZE; -1 without */
	/* While it is being set up or started: */
	struct watch control;
	int control_fd;
	bool is_executing; /* the next news is execve's success */
	bool has_request;
	uint64_t request;
	struct buffer result;
	bool has_start; /* a START that came while CREATE was under way */
	uint64_t start;
};

struct container *container_find(const char *id);
bool containers_exist(void);
struct container *container_make(const char *id);
bool container_keep_seccomp(struct container *c, const struct sock_filter *code, size_t count);
/* Processes, too; streams that aren't delivered stay. */
void container_free(struct container *c);
/* True if no process of it is alive. */
bool container_is_empty(const struct container *c);
/* Its first process has ended or is going to be killed: end all the others. */
void container_end(struct container *c);

struct process *process_find(struct container *c, const char *id);
struct process *process_make(struct container *c, const char *id);
void process_free(struct process *p);
/* 0 or an errno; ESRCH if it has ended. */
int process_signal(struct process *p, int signal);
int process_resize(struct process *p, uint16_t rows, uint16_t columns);
void process_stream_gone(const struct output *o, const struct input *in);

/* Reads every report of processes being started, then the exits. */
void processes_reap(void);
/* Events up to `number` are recorded: exited processes told by them are forgotten. */
void processes_forget(uint64_t number);
void processes_describe(struct buffer *answer);

#endif
