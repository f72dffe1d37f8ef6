/* The process's side in the guest: making or joining a container from inside. */
#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "console.h"
#include "device_rules.h"
#include "devices.h"
#include "platform.h"
#include "rootfs.h"
#include "security.h"

static void stage(const struct launch *l, const char *name)
{
	child_report(l, CONTROL_STAGE, clock_ns(CLOCK_BOOTTIME), name, NULL, 0);
}

static void loopback_up(const struct launch *l)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		child_fail(l, errno, "can't bring up the loopback interface: %m");
	close(fd);
}

static uint32_t access_bits(uint32_t mode)
{
	return (mode & DEVICE_READ ? BPF_DEVCG_ACC_READ : 0) |
	       (mode & DEVICE_WRITE ? BPF_DEVCG_ACC_WRITE : 0) |
	       (mode & DEVICE_MAKE ? BPF_DEVCG_ACC_MKNOD : 0);
}

/* A privileged container may use every device of its machine. */
static void limit_devices(const struct launch *l)
{
	const struct items *devices = &l->create->devices;
	struct device_rule rules[MAX_DEVICE_RULES];
	char path[CGROUP_PATH_SIZE];
	struct device found;
	int fd, error;

	if (l->create->privileged || !devices->count)
		return;
	if (devices->count > MAX_DEVICE_RULES)
		child_fail(l, E2BIG, "more than %d devices", MAX_DEVICE_RULES);
	for (size_t i = 0; i < devices->count; i++) {
		if (!device_find(devices->items[i].name, &found))
			child_fail(l, ENODEV, "the virtual machine has no device %s",
				   devices->items[i].name);
		rules[i] = (struct device_rule){ S_ISBLK(found.type), found.major, found.minor,
						 access_bits(devices->items[i].mode) };
	}
	cgroup_path(l->container->id, path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	error = fd < 0 ? errno : device_rules_attach(fd, rules, devices->count);
	if (error)
		child_fail(l, error, "can't attach the device rules: %s", strerror(error));
	close(fd);
}

static void join_cgroup(const struct launch *l)
{
	char path[CGROUP_PATH_SIZE + 16];
	int fd;

	cgroup_path(l->container->id, path);
	strcat(path, "/cgroup.procs");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		child_fail(l, errno, "can't join the container's cgroup: %m");
	close(fd);
	/* Only now: a cgroup namespace's root is where its maker stands. */
	if (unshare(CLONE_NEWCGROUP))
		child_fail(l, errno, "can't make a cgroup namespace: %m");
}

static void create(struct launch *l)
{
	const struct create_spec *s = l->create;
	int *files;

	rootfs_mount(l, &files);
	stage(l, "mount");
	limit_devices(l);
	join_cgroup(l);
	if (sethostname(s->hostname, strlen(s->hostname)) ||
	    setdomainname(s->domainname, strlen(s->domainname)))
		child_fail(l, errno, "can't set the host name to %s: %m", s->hostname);
	loopback_up(l);
	rootfs_enter(l, files);
	stage(l, "namespaces");
}

/* The pid namespace holds for children only, hence a second fork; CLONE_PARENT makes the process the
 * agent's child, like all others. */
static void join(struct launch *l)
{
	int pidfd = pidfd_open(l->init_pid, 0);
	pid_t pid;

	if (pidfd < 0 || setns(pidfd, CONTAINER_NAMESPACES | CLONE_NEWCGROUP))
		child_fail(l, errno, "can't join the container: %m");
	close(pidfd);
	pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		child_fail(l, errno, "can't fork in the container: %m");
	if (pid)
		_exit(0);
}

void platform_enter(struct launch *l)
{
	if (l->create)
		create(l);
	else
		join(l);
}

void platform_terminal(struct launch *l, int *master, int *slave)
{
	int unlock = 0;
	unsigned number;
	char path[32];

	*master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlock) || ioctl(*master, TIOCGPTN, &number))
		child_fail(l, errno, "can't open a terminal in the container: %m");
	*slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		child_fail(l, errno, "can't open the terminal's other side: %m");
	if (!l->create)
		return;
	snprintf(path, sizeof(path), "/dev/pts/%u", number);
	close(open("/dev/console", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600));
	if (mount(path, "/dev/console", NULL, MS_BIND, NULL))
		child_fail(l, errno, "can't make /dev/console: %m");
}

void platform_secure(struct launch *l)
{
	security_apply(l);
}

int platform_agent_fd(void)
{
	struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
	int fd = open_tree(AT_FDCWD, "/init", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	/* A mount of its own, read-only: /proc/1/exe in the container is no way to write to it. */
	if (fd >= 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &read_only, sizeof(read_only))) {
		close(fd);
		return -1;
	}
	return fd;
}
