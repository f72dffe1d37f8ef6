/* The agent in its guest: namespaces, cgroups, disks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "cgroup.h"
#include "console.h"
#include "device_rules.h"
#include "events.h"
#include "fields.h"
#include "platform.h"
#include "protocol.h"
#include "requests.h"
#include "rootfs.h"
#include "security.h"

#define CONTAINER_NAMESPACES \
	(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
#define STEP_FROM_NS 500000000ll

struct platform {
	struct container *container;
	int cgroup;
	int scratch; /* directory on the scratch disk; -1 until it is mounted */
	struct watch memory_events;
	struct watch cgroup_events;
	struct watch sync_end;
	uint64_t oom_kills;
	bool is_freezing;
	uint64_t freeze_request;
};

static int failed(char *error, int number, const char *what)
{
	snprintf(error, ERROR_SIZE, "%s: %s", what, strerror(number));
	return number;
}

#define OWNER(watch, member) \
	((struct platform *)((char *)(watch) - offsetof(struct platform, member)))

uint64_t platform_oom_kills(struct container *c)
{
	return cgroup_number(c->platform->cgroup, "memory.events", "oom_kill");
}

static void memory_event(struct watch *w, uint32_t events)
{
	struct platform *p = OWNER(w, memory_events);
	uint64_t kills = platform_oom_kills(p->container);
	char text[16];

	(void)events;
	/* The file is "ready" until somebody reads it by this descriptor. */
	if (pread(w->fd, text, sizeof(text), 0) < 0)
		loop_remove(w);
	if (kills > p->oom_kills)
		event_oom(p->container->id, kills);
	p->oom_kills = kills;
}

static void freezer_event(struct watch *w, uint32_t events)
{
	struct platform *p = OWNER(w, cgroup_events);
	char text[16];

	(void)events;
	if (pread(w->fd, text, sizeof(text), 0) < 0)
		loop_remove(w);
	if (!p->is_freezing || !cgroup_number(p->cgroup, "cgroup.events", "frozen"))
		return;
	p->is_freezing = false;
	request_answer(p->freeze_request, 0, NULL, NULL);
}

static bool watch_file(struct platform *p, struct watch *w, const char *name,
		       void (*ready)(struct watch *, uint32_t))
{
	int fd = openat(p->cgroup, name, O_RDONLY | O_CLOEXEC);
	char text[16];

	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text)) >= 0 && loop_add(w, fd, EPOLLPRI, ready))
		return true;
	close(fd);
	return false;
}

int platform_container_open(struct container *c, const struct create_spec *s, char *error)
{
	struct platform *p = calloc(1, sizeof(*p));
	const char *name = "";
	int number;

	if (!p)
		return failed(error, ENOMEM, "the container's state");
	p->container = c;
	p->cgroup = p->scratch = -1;
	p->memory_events.fd = p->cgroup_events.fd = p->sync_end.fd = -1;
	c->platform = p;
	p->cgroup = cgroup_make(c->id);
	if (p->cgroup < 0)
		return failed(error, errno, "can't make the container's cgroup");
	number = cgroup_apply(p->cgroup, &s->limits, &name);
	if (number)
		return failed(error, number, name);
	number = device_rules_attach(p->cgroup);
	if (number)
		return failed(error, number, "can't attach the device rules");
	if (!watch_file(p, &p->memory_events, "memory.events", memory_event) ||
	    !watch_file(p, &p->cgroup_events, "cgroup.events", freezer_event))
		return failed(error, errno, "can't watch the container's cgroup");
	return 0;
}

static void close_watch(struct watch *w)
{
	int fd = w->fd;

	loop_remove(w);
	if (fd >= 0)
		close(fd);
}

void platform_container_close(struct container *c)
{
	struct platform *p = c->platform;

	if (!p)
		return;
	close_watch(&p->memory_events);
	close_watch(&p->cgroup_events);
	close_watch(&p->sync_end);
	if (p->cgroup >= 0) {
		close(p->cgroup);
		cgroup_remove(c->id);
	}
	if (p->scratch >= 0)
		close(p->scratch);
	free(p);
	c->platform = NULL;
}

pid_t platform_fork(struct container *c, bool is_init)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	if (is_init) {
		/* It joins its cgroup later: the device rules would forbid it to mount. */
		args.flags = CONTAINER_NAMESPACES;
	} else {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)c->platform->cgroup;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

void platform_scratch(struct container *c, int directory)
{
	c->platform->scratch = directory;
}

void platform_kill(struct container *c)
{
	if (c->platform && c->platform->cgroup >= 0)
		cgroup_write(c->platform->cgroup, "cgroup.kill", "1");
}

static void sync_ended(struct watch *w, uint32_t events)
{
	(void)events;
	container_synced(OWNER(w, sync_end)->container);
}

/* In a process of its own: a slow disk must not silence the channel. Its exit closes the pipe. */
void platform_sync(struct container *c)
{
	struct platform *p = c->platform;
	int ends[2];
	pid_t pid;

	if (p->scratch < 0 || pipe2(ends, O_CLOEXEC)) {
		container_synced(c);
		return;
	}
	pid = fork();
	if (!pid) {
		syncfs(p->scratch);
		_exit(0);
	}
	close(ends[1]);
	if (pid > 0 && loop_add(&p->sync_end, ends[0], EPOLLIN, sync_ended))
		return;
	close(ends[0]);
	syncfs(p->scratch);
	container_synced(c);
}

int platform_freeze(struct container *c, uint64_t request, char *error)
{
	struct platform *p = c->platform;
	int number;

	if (p->is_freezing)
		return failed(error, EBUSY, "the container is being frozen already");
	number = cgroup_write(p->cgroup, "cgroup.freeze", "1");
	if (number)
		return failed(error, number, "can't freeze the container");
	c->is_frozen = true;
	p->is_freezing = true;
	p->freeze_request = request;
	freezer_event(&p->cgroup_events, 0);
	return 0;
}

int platform_thaw(struct container *c, char *error)
{
	struct platform *p = c->platform;
	int number = cgroup_write(p->cgroup, "cgroup.freeze", "0");

	if (number)
		return failed(error, number, "can't thaw the container");
	c->is_frozen = false;
	if (p->is_freezing) {
		p->is_freezing = false;
		request_answer(p->freeze_request, EINTR, "the container was thawed meanwhile", NULL);
	}
	return 0;
}

int platform_update(struct container *c, const struct limits *l, char *error)
{
	const char *name = "";
	int number = cgroup_apply(c->platform->cgroup, l, &name);

	return number ? failed(error, number, name) : 0;
}

int platform_stats(struct container *c, struct buffer *result, char *error)
{
	struct statfs disk;

	(void)error;
	cgroup_stats(c->platform->cgroup, result);
	if (c->platform->scratch >= 0 && !fstatfs(c->platform->scratch, &disk)) {
		put_number(result, TAG_STAT_SCRATCH_USED_BYTES,
			   (disk.f_blocks - disk.f_bfree) * (uint64_t)disk.f_bsize);
		put_number(result, TAG_STAT_SCRATCH_TOTAL_BYTES,
			   disk.f_blocks * (uint64_t)disk.f_bsize);
	}
	return 0;
}

int platform_set_clock(uint64_t time_ns, char *error)
{
	int64_t off_ns = (int64_t)(time_ns - clock_ns(CLOCK_REALTIME));
	struct timespec to = { (time_t)(time_ns / 1000000000), (long)(time_ns % 1000000000) };
	struct timeval by = { (time_t)(off_ns / 1000000000), (suseconds_t)(off_ns % 1000000000 / 1000) };

	if (off_ns >= STEP_FROM_NS || off_ns <= -STEP_FROM_NS) {
		if (clock_settime(CLOCK_REALTIME, &to))
			return failed(error, errno, "can't set the clock");
		say("clock stepped by %lld ms", (long long)(off_ns / 1000000));
	} else if (adjtime(&by, NULL)) {
		return failed(error, errno, "can't slew the clock");
	}
	return 0;
}

int platform_seed(const uint8_t *bytes, size_t count, char *error)
{
	struct rand_pool_info *pool = calloc(1, sizeof(*pool) + count);
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), number = 0;

	if (!pool || fd < 0) {
		number = pool ? errno : ENOMEM;
	} else {
		pool->entropy_count = (int)(count * 8);
		pool->buf_size = (int)count;
		memcpy(pool->buf, bytes, count);
		if (ioctl(fd, RNDADDENTROPY, pool) || ioctl(fd, RNDRESEEDCRNG))
			number = errno;
	}
	if (fd >= 0)
		close(fd);
	free(pool);
	return number ? failed(error, number, "can't seed the random number generator") : 0;
}

void platform_power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
}

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
