/* Process 1 of the guest. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "channel.h"
#include "console.h"
#include "hello.h"
#include "init.h"
#include "port.h"

static void spare_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) != 5)
		say("can't protect the agent from the OOM killer: %m");
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	int fd;

	if (argc > 1 && !strcmp(argv[0], INIT_ARGV0))
		return container_init(argv + 1);
	if (getpid() != 1) {
		say("the agent is process 1 of a guest and nothing else");
		return 1;
	}
	boot_system();
	spare_from_oom();
	fd = port_open();
	if (fd < 0) /* the kernel panics, and the host reads the console */
		return 1;
	hello_stage("port");
	if (!agent_init() || !channel_serve(fd, &(struct channel_end){ .reopen = port_reopen }))
		return 1;
	agent_run();
}
