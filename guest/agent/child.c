/* A new process between fork and execve. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"
#include "launch.h"
#include "lookup.h"
#include "platform.h"

/* Where the descriptors lie that the new process keeps until execve; 0 to 2 stay the agent's. */
enum { FD_CONTROL = INIT_CONTROL_FD, FD_STDIN, FD_STDOUT, FD_STDERR, FD_AGENT, FD_FREE };
#define FD_HIGH 64

void child_report(const struct launch *l, enum control_kind kind, uint64_t value,
		  const char *text, const int *fds, int fd_count)
{
	struct control_message m = { .kind = kind, .value = value };

	if (text)
		snprintf(m.text, sizeof(m.text), "%s", text);
	if (!control_send(l->control, &m, fds, fd_count))
		_exit(125); /* no agent: nobody to run for */
}

void child_fail(const struct launch *l, int error, const char *format, ...)
{
	struct control_message m = { .kind = CONTROL_ERROR, .error = error };
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(m.text, sizeof(m.text), format, arguments);
	va_end(arguments);
	control_send(l->control, &m, NULL, 0);
	_exit(125);
}

/* The agent's descriptors must not survive here: a held pipe end would keep a stream open. */
static void keep_descriptors(struct launch *l)
{
	int *kept[] = { &l->control, &l->stdio[0], &l->stdio[1], &l->stdio[2], NULL };
	int agent = l->use_init ? platform_agent_fd() : -1, high;

	for (int i = 0; kept[i]; i++) {
		if (*kept[i] < 0)
			continue;
		high = fcntl(*kept[i], F_DUPFD_CLOEXEC, FD_HIGH);
		if (high < 0)
			child_fail(l, errno, "can't keep a descriptor: %m");
		*kept[i] = high;
	}
	if (agent >= 0)
		agent = fcntl(agent, F_DUPFD_CLOEXEC, FD_HIGH);
	for (int i = 0; kept[i]; i++)
		if (*kept[i] >= 0)
			*kept[i] = dup3(*kept[i], FD_CONTROL + i, O_CLOEXEC);
	if (agent >= 0)
		dup3(agent, FD_AGENT, O_CLOEXEC);
	close_range(FD_FREE, ~0u, 0);
}

static void reset_signals(void)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int i = 1; i <= SIGRTMAX; i++)
		sigaction(i, &plain, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void await_start(const struct launch *l)
{
	struct control_message go;

	child_report(l, CONTROL_READY, 0, NULL, NULL, 0);
	if (recv(l->control, &go, sizeof(go), 0) <= 0)
		_exit(125);
}

static void open_terminal(struct launch *l)
{
	struct winsize size = { .ws_row = l->process->rows, .ws_col = l->process->columns };
	int master, slave;

	platform_terminal(l, &master, &slave);
	if (size.ws_row && size.ws_col)
		ioctl(master, TIOCSWINSZ, &size);
	child_report(l, CONTROL_TERMINAL, 0, NULL, &master, 1);
	close(master);
	if (ioctl(slave, TIOCSCTTY, 0))
		child_fail(l, errno, "can't control the terminal: %m");
	for (int i = 0; i < 3; i++)
		l->stdio[i] = slave;
}

static void connect_stdio(struct launch *l)
{
	for (int i = 0; i < 3; i++) {
		int fd = l->stdio[i];

		if (fd < 0)
			fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			child_fail(l, errno, "can't open /dev/null in the container: %m");
		if (dup2(fd, i) < 0)
			child_fail(l, errno, "can't connect descriptor %d: %m", i);
	}
}

static void set_rlimits(const struct launch *l)
{
	for (size_t i = 0; i < l->process->rlimit_count; i++) {
		const struct rlimit_spec *r = &l->process->rlimits[i];
		struct rlimit limit = { r->soft, r->hard };

		if (r->resource >= RLIM_NLIMITS || setrlimit((int)r->resource, &limit))
			child_fail(l, EINVAL, "can't set rlimit %llu to %llu:%llu: %m",
				   (unsigned long long)r->resource, (unsigned long long)r->soft,
				   (unsigned long long)r->hard);
	}
}

static void make_cwd(const struct launch *l)
{
	const char *cwd = l->process->cwd;
	char path[4096];
	size_t length = strlen(cwd);

	if (length >= sizeof(path))
		child_fail(l, ENAMETOOLONG, "the working directory's path is too long");
	for (size_t i = 1; i <= length; i++) {
		if (cwd[i] && cwd[i] != '/')
			continue;
		memcpy(path, cwd, i);
		path[i] = 0;
		if (mkdir(path, 0755) && errno != EEXIST && errno != EROFS)
			child_fail(l, errno, "mkdir %s: %m", path);
	}
	if (chdir(cwd))
		child_fail(l, errno, "chdir to cwd (\"%s\"): %m", cwd);
}

/* The agent's binary as the container's process 1; it reports its child's execve by the control
 * socket, which therefore stays open. */
_Noreturn static void execute_init(struct launch *l, char *path)
{
	struct strings args = l->process->args;
	char **init_args = calloc(args.count + 3, sizeof(char *));

	if (!init_args)
		child_fail(l, ENOMEM, "out of memory");
	init_args[0] = (char *)INIT_ARGV0;
	init_args[1] = path;
	memcpy(init_args + 2, args.items, args.count * sizeof(char *));
	fcntl(l->control, F_SETFD, 0);
	execveat(FD_AGENT, "", init_args, l->process->env.items, AT_EMPTY_PATH);
	child_fail(l, errno, "can't execute the container's init: %s", strerror(errno));
}

_Noreturn static void execute(struct launch *l)
{
	struct strings args = l->process->args;
	char path[4096];
	int error = lookup_command(args.items[0], l->process->env.items, path, sizeof(path));

	if (error && !strchr(args.items[0], '/') && error == ENOENT)
		child_fail(l, error, "exec: \"%s\": executable file not found in $PATH",
			   args.items[0]);
	if (error == ENOENT)
		child_fail(l, error, "exec: \"%s\": stat %s: no such file or directory",
			   args.items[0], args.items[0]);
	if (error)
		child_fail(l, error, "exec: \"%s\": %s", args.items[0],
			   error == EISDIR ? "is a directory" : error == EACCES ? "permission denied" :
										  strerror(error));
	if (l->use_init)
		execute_init(l, path);
	execve(path, args.items, l->process->env.items);
	child_fail(l, errno, "exec %s: %s", path, strerror(errno));
}

void child_main(struct launch *l)
{
	keep_descriptors(l);
	reset_signals();
	platform_enter(l);
	if (setsid() < 0)
		child_fail(l, errno, "setsid: %m");
	child_report(l, CONTROL_PID, 0, NULL, NULL, 0);
	if (l->process->tty)
		open_terminal(l);
	if (l->create)
		await_start(l);
	connect_stdio(l);
	set_rlimits(l);
	make_cwd(l);
	child_report(l, CONTROL_EXECUTING, 0, NULL, NULL, 0);
	platform_secure(l);
	execute(l);
}
