#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "console.h"
#include "fields.h"
#include "input.h"
#include "output.h"
#include "platform.h"
#include "protocol.h"
#include "requests.h"

#define FIRST_PROCESS_MEMORY_BYTES (1 << 20)
#define OTHER_PROCESS_MEMORY_BYTES (256 << 10)
#define RESULT_LIMIT_BYTES 16384

struct pipes {
	int ours[3]; /* stdin: write end; stdout, stderr: read ends */
	int theirs[3];
};

static void close_all(int *fds, int count)
{
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static bool make_pipe(struct pipes *p, int which)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return false;
	p->ours[which] = which ? ends[0] : ends[1];
	p->theirs[which] = which ? ends[1] : ends[0];
	return true;
}

static bool make_pipes(struct pipes *p, const struct process_spec *s)
{
	for (int i = 0; i < 3; i++)
		p->ours[i] = p->theirs[i] = -1;
	if (s->tty)
		return true;
	if ((!s->stdin_stream || make_pipe(p, 0)) && make_pipe(p, 1) && make_pipe(p, 2))
		return true;
	close_all(p->ours, 3);
	close_all(p->theirs, 3);
	return false;
}

static bool streams_are_free(const struct process_spec *s)
{
	return !output_exists(s->output_stream) && !input_exists(s->output_stream) &&
	       !output_exists(s->stdin_stream) && !input_exists(s->stdin_stream) &&
	       s->stdin_stream != s->output_stream;
}

static bool make_streams(struct process *p, const struct process_spec *s, bool is_first)
{
	p->output = output_make(s->output_stream, p->container,
				is_first ? FIRST_PROCESS_MEMORY_BYTES : OTHER_PROCESS_MEMORY_BYTES);
	if (!p->output)
		return false;
	if (!s->stdin_stream)
		return true;
	p->input = input_make(s->stdin_stream);
	return p->input != NULL;
}

static bool connect_pipes(struct process *p, struct pipes *pipes)
{
	if (pipes->ours[1] < 0)
		return true; /* a terminal: its master comes later */
	if (!output_add_source(p->output, pipes->ours[1], SOURCE_STDOUT))
		return false;
	pipes->ours[1] = -1;
	if (!output_add_source(p->output, pipes->ours[2], SOURCE_STDERR))
		return false;
	pipes->ours[2] = -1;
	output_seal(p->output);
	if (p->input && !input_set_target(p->input, pipes->ours[0]))
		return false;
	pipes->ours[0] = -1;
	return true;
}

static void news_ready(struct watch *w, uint32_t events)
{
	(void)events;
	launch_news((struct process *)((char *)w - offsetof(struct process, control)), false);
}

/* Forks; in the parent 0 or an errno. */
static int fork_process(struct process *p, struct launch *l)
{
	int ends[2], error = 0;
	pid_t pid;

	if (!control_pair(ends))
		return errno;
	l->control = ends[1];
	pid = platform_fork(p->container, l->create != NULL);
	if (!pid)
		child_main(l);
	error = pid < 0 ? errno : 0;
	close(ends[1]);
	if (!error && !loop_add(&p->control, ends[0], EPOLLIN, news_ready))
		error = errno;
	if (error) {
		close(ends[0]);
		return error;
	}
	p->control_fd = ends[0];
	if (l->create) {
		p->pid = pid;
		p->pidfd = pidfd_open(pid, 0);
	}
	return 0;
}

static int begin(struct process *p, struct launch *l, uint64_t request)
{
	struct pipes pipes;
	int error;

	if (!streams_are_free(l->process))
		return EEXIST;
	if (!make_streams(p, l->process, l->create != NULL))
		return ENOMEM;
	if (!make_pipes(&pipes, l->process))
		return errno;
	memcpy(l->stdio, pipes.theirs, sizeof(l->stdio));
	p->request = request;
	p->has_request = true;
	buffer_init(&p->result, RESULT_LIMIT_BYTES);
	error = fork_process(p, l);
	close_all(pipes.theirs, 3);
	if (!error && !connect_pipes(p, &pipes))
		error = errno;
	close_all(pipes.ours, 3);
	return error;
}

/* Nothing of a process that never ran stays, nor of its container. */
static void undo(struct process *p)
{
	struct container *c = p->container;
	bool is_first = p == c->init;

	if (p->pidfd >= 0)
		process_signal(p, SIGKILL);
	if (p->input)
		input_close(p->input);
	if (p->output)
		output_discard(p->output);
	process_free(p);
	if (is_first) {
		platform_kill(c);
		platform_container_close(c);
		container_free(c);
	}
}

static void refuse(uint64_t request, int error, const char *text)
{
	request_answer(request, error, text && *text ? text : strerror(error), NULL);
}

void launch_create(uint64_t request, const char *id, const struct create_spec *s)
{
	struct launch l = { .create = s, .process = &s->process, .use_init = s->init,
			    .seccomp = s->seccomp, .seccomp_count = s->seccomp_count };
	char text[ERROR_SIZE] = "";
	struct container *c = container_make(id);
	int error;

	if (!c) {
		refuse(request, ENOMEM, NULL);
		return;
	}
	c->spill_bytes = s->spill_bytes;
	error = container_keep_seccomp(c, s->seccomp, s->seccomp_count) ? platform_container_open(c, s, text) : ENOMEM;
	if (!error)
		c->init = process_make(c, "init");
	if (error || !c->init) {
		platform_container_close(c);
		container_free(c);
		refuse(request, error ? error : ENOMEM, text);
		return;
	}
	l.container = c;
	error = begin(c->init, &l, request);
	if (error) {
		undo(c->init);
		refuse(request, error, error == EEXIST ? "a stream id is in use" : NULL);
	}
}

void launch_exec(uint64_t request, struct container *c, const char *id,
		 const struct process_spec *s)
{
	struct launch l = { .container = c, .process = s, .seccomp = c->seccomp,
			    .seccomp_count = c->seccomp_count, .init_pid = c->init->pid };
	struct process *p = process_make(c, id);
	int error;

	if (!p) {
		refuse(request, EAGAIN, "too many processes");
		return;
	}
	error = begin(p, &l, request);
	if (error) {
		undo(p);
		refuse(request, error, error == EEXIST ? "a stream id is in use" : NULL);
	}
}

static void go(uint64_t request, struct process *p)
{
	p->has_request = true;
	p->request = request;
	buffer_init(&p->result, RESULT_LIMIT_BYTES);
	/* A failure means that the process is dead, which the end of the socket tells. */
	control_send(p->control_fd, &(struct control_message){ 0 }, NULL, 0);
}

void launch_start(uint64_t request, struct container *c)
{
	struct process *p = c->init;

	if (p && p->state == PROCESS_STATE_SETUP && !p->has_start) {
		p->has_start = true;
		p->start = request;
	} else if (p && p->state == PROCESS_STATE_CREATED && !p->has_request) {
		go(request, p);
	} else {
		refuse(request, EALREADY, "the container has been started already");
	}
}

static void answer(struct process *p, int error, const char *text)
{
	uint64_t request = p->request;

	p->has_request = false;
	if (error)
		refuse(request, error, text);
	else
		request_answer(request, 0, NULL, &p->result);
	buffer_free(&p->result);
}

static void stop_listening(struct process *p)
{
	loop_remove(&p->control);
	close(p->control_fd);
	p->control_fd = -1;
}

/* CREATE and EXEC leave nothing behind; after START the container is there, ended. */
static void failed(struct process *p, int error, const char *text)
{
	struct process was = *p;

	if (p->state == PROCESS_STATE_SETUP) {
		undo(p);
		refuse(was.request, error, text);
		if (was.has_start)
			refuse(was.start, error, text);
		return;
	}
	stop_listening(p);
	process_signal(p, SIGKILL);
	p->state = PROCESS_STATE_EXITED;
	p->exit_code = error == ENOENT ? 127 : 126; /* the shell's convention, and Docker's */
	p->time_ns = clock_ns(CLOCK_REALTIME);
	answer(p, error, text);
	if (p->input)
		input_close(p->input);
	container_end(p->container);
}

static void executed(struct process *p)
{
	stop_listening(p);
	if (p->state == PROCESS_STATE_SETUP)
		put_number(&p->result, TAG_PID, (uint64_t)p->pid);
	p->state = PROCESS_STATE_RUNNING;
	p->time_ns = clock_ns(CLOCK_REALTIME);
	answer(p, 0, NULL);
}

static bool take_terminal(struct process *p, int master)
{
	int for_input = p->input ? fcntl(master, F_DUPFD_CLOEXEC, 0) : -1;

	p->terminal = fcntl(master, F_DUPFD_CLOEXEC, 0);
	if (p->terminal < 0 || !output_add_source(p->output, master, SOURCE_STDOUT)) {
		close(master);
		return false;
	}
	output_seal(p->output);
	return !p->input || input_set_target(p->input, for_input);
}

static void take_scratch(struct process *p, struct control_received *r)
{
	if (r->fds[1] >= 0)
		output_set_spill(p->output, r->fds[1], r->message.value);
	platform_scratch(p->container, r->fds[0]);
	r->fds[0] = r->fds[1] = -1;
}

static void put_stage(struct process *p, const struct control_message *m)
{
	size_t group = put_open(&p->result, TAG_STAGE);

	put_string(&p->result, TAG_NAME, m->text);
	put_number(&p->result, TAG_AT_NS, m->value);
	put_close(&p->result, group);
}

static void became(struct process *p, pid_t pid)
{
	if (p->pid)
		return;
	p->pid = pid;
	p->pidfd = pidfd_open(pid, 0);
}

static void ready(struct process *p)
{
	p->state = PROCESS_STATE_CREATED;
	p->time_ns = clock_ns(CLOCK_REALTIME);
	put_number(&p->result, TAG_PID, (uint64_t)p->pid);
	answer(p, 0, NULL);
	if (p->has_start)
		go(p->start, p);
}

/* False if the process has failed (and may be gone). */
static bool handle(struct process *p, struct control_received *r)
{
	const struct control_message *m = &r->message;

	switch (m->kind) {
	case CONTROL_PID:
		became(p, r->pid);
		break;
	case CONTROL_STAGE:
		put_stage(p, m);
		break;
	case CONTROL_TERMINAL:
		if (!take_terminal(p, r->fds[0])) {
			failed(p, EIO, "can't relay the terminal");
			return false;
		}
		break;
	case CONTROL_SCRATCH:
		take_scratch(p, r);
		break;
	case CONTROL_READY:
		ready(p);
		break;
	case CONTROL_EXECUTING:
		p->is_executing = true;
		break;
	default:
		failed(p, m->error ? m->error : EPROTO, m->text);
		return false;
	}
	return true;
}

void launch_news(struct process *p, bool has_ended)
{
	struct control_received r;
	int got;

	while ((got = control_receive(p->control_fd, &r)) > 0)
		if (!handle(p, &r))
			return;
	if (got < 0 && !has_ended)
		return;
	if (p->is_executing)
		executed(p);
	else if (p->has_request)
		failed(p, EIO, "the process died while it was being set up (out of memory?)");
	else
		stop_listening(p); /* killed between CREATE and START: its exit follows */
}
