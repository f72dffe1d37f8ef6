/* The agent as an ordinary process, for tests of the host's channel code: real channel, spool, streams,
 * events and processes; no namespaces, cgroups, mounts or changes of user. Never in a guest. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "console.h"
#include "hello.h"
#include "native.h"
#include "platform.h"
#include "requests.h"

#define NATIVE_ONLY "not without a guest: this agent runs as an ordinary process"

const char *native_spool_directory;

static int unsupported(char *error)
{
	snprintf(error, ERROR_SIZE, NATIVE_ONLY);
	return EOPNOTSUPP;
}

int platform_container_open(struct container *c, const struct create_spec *s, char *error)
{
	(void)c, (void)s, (void)error;
	return 0;
}

void platform_container_close(struct container *c)
{
	(void)c;
}

pid_t platform_fork(struct container *c, bool is_init)
{
	(void)c, (void)is_init;
	return fork();
}

void platform_scratch(struct container *c, int directory)
{
	(void)c;
	close(directory);
}

/* In place of the cgroup: the process group that the session leader left. */
void platform_kill(struct container *c)
{
	if (c->init && c->init->pid > 0)
		kill(-c->init->pid, SIGKILL);
}

void platform_sync(struct container *c)
{
	container_synced(c);
}

uint64_t platform_oom_kills(struct container *c)
{
	(void)c;
	return 0;
}

int platform_freeze(struct container *c, uint64_t request, char *error)
{
	(void)c, (void)request;
	return unsupported(error);
}

int platform_thaw(struct container *c, char *error)
{
	(void)c;
	return unsupported(error);
}

int platform_update(struct container *c, const struct limits *l, char *error)
{
	(void)c, (void)l;
	return unsupported(error);
}

int platform_stats(struct container *c, struct buffer *result, char *error)
{
	(void)c, (void)result;
	return unsupported(error);
}

int platform_processes(struct container *c, struct buffer *result, char *error)
{
	(void)c, (void)result;
	return unsupported(error);
}

/* The machine's clock is not the test's to set. */
int platform_set_clock(uint64_t time_ns, char *error)
{
	(void)time_ns, (void)error;
	return 0;
}

/* Mixed in without being credited. */
int platform_seed(const uint8_t *bytes, size_t count, char *error)
{
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), result = 0;

	if (fd < 0 || write(fd, bytes, count) != (ssize_t)count) {
		result = errno;
		snprintf(error, ERROR_SIZE, "can't write to /dev/urandom: %m");
	}
	if (fd >= 0)
		close(fd);
	return result;
}

/* This machine's memory is not the test's to rearrange. */
int platform_quiesce(uint64_t request, char *error)
{
	(void)error;
	hello_forget_stages();
	request_answer(request, 0, NULL, NULL);
	return 0;
}

int platform_await_memory(uint64_t request, uint64_t bytes, char *error)
{
	(void)request, (void)bytes;
	return unsupported(error);
}

int platform_reclaim(struct container *c, uint64_t request, uint64_t bytes, char *error)
{
	(void)c, (void)request, (void)bytes;
	return unsupported(error);
}

void platform_power_off(void)
{
	exit(0);
}

void platform_enter(struct launch *l)
{
	int fds[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* a killed agent must not leave tests' processes behind */
	if (!l->create || !l->create->spill_bytes || !native_spool_directory)
		return;
	fds[0] = open(native_spool_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds[1] = open(native_spool_directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fds[0] < 0 || fds[1] < 0)
		child_fail(l, errno, "can't make a spool in %s: %m", native_spool_directory);
	child_report(l, CONTROL_SCRATCH, l->create->spill_bytes, NULL, fds, 2);
	close(fds[0]);
	close(fds[1]);
}

void platform_terminal(struct launch *l, int *master, int *slave)
{
	int unlock = 0;

	*master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlock))
		child_fail(l, errno, "can't open a terminal: %m");
	*slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		child_fail(l, errno, "can't open the terminal's other side: %m");
}

/* Whatever the view: "root" in the directory for spools. */
int platform_tree_root(const struct container *c, unsigned view, int *root, char *error)
{
	int directory = open(native_spool_directory ? native_spool_directory : "/nonexistent",
			     O_PATH | O_DIRECTORY | O_CLOEXEC);

	(void)c, (void)view;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*root = openat(directory, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*root < 0)
		return unsupported(error);
	close(directory);
	return 0;
}

void platform_secure(struct launch *l)
{
	(void)l;
}

int platform_agent_fd(void)
{
	return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
}
