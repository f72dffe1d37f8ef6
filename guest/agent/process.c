#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "console.h"
#include "events.h"
#include "fields.h"
#include "input.h"
#include "launch.h"
#include "output.h"
#include "platform.h"
#include "protocol.h"

static struct container *containers;
static struct process *processes;
static unsigned process_count;

bool containers_exist(void)
{
	return containers != NULL;
}

struct container *container_find(const char *id)
{
	struct container *c = containers;

	while (c && strcmp(c->id, id))
		c = c->next;
	return c;
}

struct container *container_make(const char *id)
{
	struct container *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	strcpy(c->id, id);
	c->next = containers;
	containers = c;
	return c;
}

bool container_keep_seccomp(struct container *c, const struct sock_filter *code, size_t count)
{
	if (!count)
		return true;
	c->seccomp = malloc(count * sizeof(*code));
	if (!c->seccomp)
		return false;
	memcpy(c->seccomp, code, count * sizeof(*code));
	c->seccomp_count = count;
	return true;
}

void container_free(struct container *c)
{
	struct container **at = &containers;
	struct process *p, *next;

	for (p = processes; p; p = next) {
		next = p->next;
		if (p->container == c)
			process_free(p);
	}
	outputs_orphan(c);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c->seccomp);
	free(c);
}

static bool is_alive(const struct process *p)
{
	return p->state != PROCESS_STATE_EXITED;
}

bool container_is_empty(const struct container *c)
{
	for (const struct process *p = processes; p; p = p->next)
		if (p->container == c && is_alive(p))
			return false;
	return true;
}

void container_end(struct container *c)
{
	platform_kill(c);
	for (struct process *p = processes; p; p = p->next) {
		if (p->container != c)
			continue;
		if (is_alive(p))
			process_signal(p, SIGKILL);
		if (p->output && !is_alive(c->init))
			output_finish(p->output);
	}
}

struct process *process_find(struct container *c, const char *id)
{
	struct process *p = processes;

	while (p && (p->container != c || strcmp(p->id, id)))
		p = p->next;
	return p;
}

struct process *process_make(struct container *c, const char *id)
{
	struct process *p;

	if (process_count == MAX_PROCESSES)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	strcpy(p->id, id);
	p->container = c;
	p->pidfd = p->terminal = p->control_fd = p->control.fd = -1;
	p->next = processes;
	processes = p;
	process_count++;
	return p;
}

void process_free(struct process *p)
{
	struct process **at = &processes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	process_count--;
	loop_remove(&p->control);
	if (p->control_fd >= 0)
		close(p->control_fd);
	if (p->pidfd >= 0)
		close(p->pidfd);
	if (p->terminal >= 0)
		close(p->terminal);
	if (p->container->init == p)
		p->container->init = NULL;
	buffer_free(&p->result);
	free(p);
}

int process_signal(struct process *p, int signal)
{
	if (!is_alive(p) || p->pidfd < 0)
		return ESRCH;
	return pidfd_send_signal(p->pidfd, signal, NULL, 0) ? errno : 0;
}

int process_resize(struct process *p, uint16_t rows, uint16_t columns)
{
	struct winsize size = { .ws_row = rows, .ws_col = columns };

	if (p->terminal < 0)
		return ENOTTY;
	return ioctl(p->terminal, TIOCSWINSZ, &size) ? errno : 0;
}

void process_stream_gone(const struct output *o, const struct input *in)
{
	for (struct process *p = processes; p; p = p->next) {
		if (o && p->output == o)
			p->output = NULL;
		if (in && p->input == in)
			p->input = NULL;
	}
}

static void exited(struct process *p, int status)
{
	struct container *c = p->container;

	p->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	p->exit_code = p->signal ? 128 + p->signal : WEXITSTATUS(status);
	p->time_ns = clock_ns(CLOCK_REALTIME);
	p->state = PROCESS_STATE_EXITED;
	/* Docker's rule: the container was out of memory if anything in it was killed for that. */
	p->oom_killed = p == c->init ? platform_oom_kills(c) > 0 :
				       p->signal == SIGKILL && platform_oom_kills(c) > 0;
	if (p->input)
		input_close(p->input);
	if (p->terminal >= 0)
		close(p->terminal);
	p->terminal = -1;
	loop_remove(&p->control);
	if (p->control_fd >= 0)
		close(p->control_fd);
	p->control_fd = -1;
	event_process_exited(p);
	if (p == c->init) {
		say("container %.12s: ended with %d%s", c->id, p->exit_code,
		    p->oom_killed ? ", out of memory" : "");
		container_end(c);
	}
	if (c->is_deleting && container_is_empty(c))
		platform_sync(c);
}

static struct process *find_alive(pid_t pid)
{
	struct process *p = processes;

	while (p && (p->pid != pid || !is_alive(p)))
		p = p->next;
	return p;
}

static void hear_news(void)
{
	struct process *p, *next;

	for (p = processes; p; p = next) {
		next = p->next;
		if (p->control_fd >= 0)
			launch_news(p, false);
	}
}

static void reaped(pid_t pid, int status)
{
	struct process *p = find_alive(pid);

	if (!p) {
		/* It may have told its pid, run and ended since the news were heard. */
		hear_news();
		p = find_alive(pid);
	}
	if (!p)
		return; /* an orphan, or a helper of a start */
	if (p->has_request)
		launch_news(p, true);
	p = find_alive(pid); /* it is gone if it never came to run */
	if (p)
		exited(p, status);
}

void processes_reap(void)
{
	int status;
	pid_t pid;

	hear_news();
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		reaped(pid, status);
}

void processes_forget(uint64_t number)
{
	struct process *p, *next;

	for (p = processes; p; p = next) {
		next = p->next;
		if (!is_alive(p) && p->exit_event && p->exit_event <= number &&
		    p != p->container->init)
			process_free(p);
	}
}

void processes_describe(struct buffer *answer)
{
	size_t group;

	for (const struct process *p = processes; p; p = p->next) {
		if (p->state == PROCESS_STATE_SETUP)
			continue;
		group = put_open(answer, TAG_PROCESS);
		put_string(answer, TAG_CONTAINER, p->container->id);
		put_string(answer, TAG_PROCESS_ID, p->id);
		put_number(answer, TAG_PROCESS_STATE, p->state);
		put_number(answer, TAG_PID, (uint64_t)p->pid);
		put_number(answer, TAG_EXIT_CODE, (uint64_t)p->exit_code);
		put_number(answer, TAG_SIGNAL, (uint64_t)p->signal);
		put_number(answer, TAG_OOM_KILLED, p->oom_killed);
		put_number(answer, TAG_TIME_NS, p->time_ns);
		put_close(answer, group);
	}
}
