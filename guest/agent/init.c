#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"

extern char **environ;

_Noreturn static void execute(char **argv)
{
	struct control_message m = { .kind = CONTROL_ERROR };

	execve(argv[0], argv + 1, environ);
	m.error = errno;
	snprintf(m.text, sizeof(m.text), "exec %s: %s", argv[0], strerror(errno));
	control_send(INIT_CONTROL_FD, &m, NULL, 0);
	_exit(m.error == ENOENT ? 127 : 126);
}

static int exit_code(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Hands every signal on to the child and reaps until the child has ended. */
static int look_after(pid_t child, const sigset_t *all)
{
	siginfo_t info;
	int status;
	pid_t pid;

	for (;;) {
		if (sigwaitinfo(all, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			kill(child, info.si_signo);
			continue;
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				return exit_code(status);
	}
}

int container_init(char **argv)
{
	sigset_t all, none;
	pid_t child;

	fcntl(INIT_CONTROL_FD, F_SETFD, FD_CLOEXEC);
	sigfillset(&all);
	/* Faults of our own must not be waited for: the kernel would kill us anyway. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGABRT);
	sigprocmask(SIG_SETMASK, &all, NULL);
	child = fork();
	if (child < 0)
		return 126;
	if (!child) {
		/* A job of its own, in the foreground of the terminal if there is one. */
		setpgid(0, 0);
		if (isatty(STDIN_FILENO))
			tcsetpgrp(STDIN_FILENO, getpid());
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execute(argv);
	}
	close(INIT_CONTROL_FD);
	return look_after(child, &all);
}
