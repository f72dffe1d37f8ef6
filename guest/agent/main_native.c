/* Usage: slipway-agent-native (--channel-fd N | --listen PATH) [--spool-dir DIR]
 *
 * --channel-fd serves one inherited stream socket and ends with it; --listen accepts one connection
 * after the other on a unix socket and ends by POWER_OFF or a signal. The processes that it started end
 * with it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "console.h"
#include "init.h"
#include "loop.h"
#include "native.h"

static struct watch listener = WATCH_NONE;
static int listen_fd = -1;

static void serve(int fd);
static void connection(struct watch *w, uint32_t events);

static void closed(void)
{
	if (listen_fd < 0)
		exit(0);
	loop_add(&listener, listen_fd, EPOLLIN, connection);
}

static void connection(struct watch *w, uint32_t events)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	loop_remove(&listener); /* one host at a time; the next waits in the backlog */
	serve(fd);
}

static void serve(int fd)
{
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) || fcntl(fd, F_SETFL, O_NONBLOCK) ||
	    !channel_serve(fd, &(struct channel_end){ .closed = closed })) {
		say("can't serve descriptor %d: %m", fd);
		exit(1);
	}
}

static void listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path)) {
		say("the path is too long: %s", path);
		exit(2);
	}
	strcpy(address.sun_path, path);
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listen_fd, 8)) {
		say("can't listen on %s: %m", path);
		exit(1);
	}
	loop_add(&listener, listen_fd, EPOLLIN, connection);
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	int fd = -1;

	if (!strcmp(argv[0], INIT_ARGV0))
		return container_init(argv + 1);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--channel-fd"))
			fd = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--listen"))
			path = argv[i + 1];
		else if (!strcmp(argv[i], "--spool-dir"))
			native_spool_directory = argv[i + 1];
	}
	if ((fd < 0) == !path) {
		fprintf(stderr, "usage: %s (--channel-fd N | --listen PATH) [--spool-dir DIR]\n",
			argv[0]);
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come to us, as they do to process 1 */
	if (!agent_init())
		return 1;
	if (path)
		listen_on(path);
	else
		serve(fd);
	agent_run();
}
