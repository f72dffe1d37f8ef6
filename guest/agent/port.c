#include "port.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cgroup.h"
#include "console.h"
#include "fields.h"

#define PORTS "/sys/class/virtio-ports"
#define DRIVER "/sys/bus/virtio/drivers/virtio_console"
#define PORT_NAME "slipway.0"
#define NODE "/dev/channel"
#define TIMEOUT_NS 10000000000ull
#define POLL_US 1000

struct port {
	dev_t number;
	char device[64]; /* virtioN, as its driver knows it */
};

static bool scan(const char *directory, const char *name, const char *format, void *a, void *b)
{
	char path[300];
	FILE *file;
	int count;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	count = fscanf(file, format, a, b);
	fclose(file);
	return count == (b ? 2 : 1);
}

static bool examine(const char *directory, struct port *found)
{
	char path[300], text[256] = "", *base;
	unsigned major, minor;

	if (!scan(directory, "name", "%63s", text, NULL) || strcmp(text, PORT_NAME) ||
	    !scan(directory, "dev", "%u:%u", &major, &minor))
		return false;
	found->number = makedev(major, minor);
	memset(text, 0, sizeof(text));
	snprintf(path, sizeof(path), "%s/device", directory);
	if (readlink(path, text, sizeof(text) - 1) < 0)
		return false;
	base = strrchr(text, '/');
	return snprintf(found->device, sizeof(found->device), "%s", base ? base + 1 : text) <
	       (int)sizeof(found->device);
}

static bool find(struct port *found)
{
	DIR *directory = opendir(PORTS);
	struct dirent *entry;
	char path[280];
	bool good = false;

	while (directory && !good && (entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), PORTS "/%s", entry->d_name);
		good = examine(path, found);
	}
	if (directory)
		closedir(directory);
	return good;
}

int port_open(void)
{
	uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + TIMEOUT_NS;
	struct port port;
	int fd;

	while (!find(&port)) {
		if (clock_ns(CLOCK_MONOTONIC) > deadline_ns) {
			say("no virtio port called " PORT_NAME " appeared");
			return -1;
		}
		usleep(POLL_US);
	}
	unlink(NODE);
	if (mknod(NODE, S_IFCHR | 0600, port.number)) {
		say("mknod for the channel: %m");
		return -1;
	}
	fd = open(NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		say("can't open the channel: %m");
	return fd;
}

int port_reopen(int fd)
{
	struct port port;

	if (!find(&port)) {
		say("the port of the channel has gone");
		return fd;
	}
	close(fd);
	if (cgroup_write(AT_FDCWD, DRIVER "/unbind", port.device) ||
	    cgroup_write(AT_FDCWD, DRIVER "/bind", port.device))
		say("can't reset the port of the channel");
	return port_open();
}
