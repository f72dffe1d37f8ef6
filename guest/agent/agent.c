#include "agent.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "channel.h"
#include "console.h"
#include "loop.h"
#include "operations.h"
#include "platform.h"
#include "process.h"

/* How long POWER_OFF's answer may take to get out. */
#define LAST_ANSWER_MS 2000

static struct watch signals = WATCH_NONE;

static void child_signal(struct watch *w, uint32_t events)
{
	struct signalfd_siginfo info;

	(void)events;
	while (read(w->fd, &info, sizeof(info)) == sizeof(info))
		;
	processes_reap();
}

bool agent_init(void)
{
	sigset_t mask;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0 || !loop_init() || !loop_add(&signals, fd, EPOLLIN, child_signal)) {
		say("can't set up the event loop: %m");
		return false;
	}
	return true;
}

void agent_run(void)
{
	for (;;) {
		loop_run(channel_service() ? 0 : -1);
		if (operation_is_power_off()) {
			channel_flush(LAST_ANSWER_MS);
			platform_power_off();
		}
	}
}
