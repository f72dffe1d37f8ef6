/* The agent in its guest: what it does to containers from outside. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "console.h"
#include "device_rules.h"
#include "events.h"
#include "fields.h"
#include "namespaces.h"
#include "platform.h"
#include "processes.h"
#include "protocol.h"
#include "requests.h"
#include "upkeep.h"

struct platform {
	struct container *container;
	int cgroup;
	int scratch; /* directory on the scratch disk; -1 until it is mounted */
	/* Its mount namespace, -1 if there is none: else the first process, as the last in it, would
	 * unmount and sync everything before its exit can be told. */
	int mounts;
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

static void give_up_freezing(struct platform *p, const char *why)
{
	if (!p->is_freezing)
		return;
	p->is_freezing = false;
	request_answer(p->freeze_request, EINTR, why, NULL);
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
	p->cgroup = p->scratch = p->mounts = -1;
	p->memory_events.fd = p->cgroup_events.fd = p->sync_end.fd = -1;
	c->platform = p;
	p->cgroup = cgroup_make(c->id);
	if (p->cgroup < 0)
		return failed(error, errno, "can't make the container's cgroup");
	number = cgroup_apply(p->cgroup, &s->limits, &name);
	if (number)
		return failed(error, number, name);
	/* Where there are others, the child attaches the rules, once every module is loaded. */
	number = s->privileged || s->devices.count ? 0 : device_rules_attach(p->cgroup, NULL, 0);
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
	if (p->mounts >= 0)
		close(p->mounts);
	if (p->scratch >= 0)
		close(p->scratch);
	free(p);
	c->platform = NULL;
}

static void hold_mounts(struct platform *p, pid_t init)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)init);
	p->mounts = open(path, O_RDONLY | O_CLOEXEC);
}

pid_t platform_fork(struct container *c, bool is_init)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	pid_t pid;

	if (is_init) {
		/* It joins its cgroup later: the device rules would forbid it to mount. */
		args.flags = CONTAINER_NAMESPACES;
	} else {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)c->platform->cgroup;
	}
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (is_init && pid > 0)
		hold_mounts(c->platform, pid);
	return pid;
}

void platform_scratch(struct container *c, int directory)
{
	c->platform->scratch = directory;
}

void platform_kill(struct container *c)
{
	struct platform *p = c->platform;

	if (!p || p->cgroup < 0)
		return;
	cgroup_write(p->cgroup, "cgroup.kill", "1");
	give_up_freezing(p, "the container ended meanwhile");
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
		/* Before the end of the pipe: the host may take the disk out once it has the answer. */
		close(p->mounts);
		close(p->scratch);
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
	give_up_freezing(p, "the container was thawed meanwhile");
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

int platform_processes(struct container *c, struct buffer *result, char *error)
{
	(void)error;
	put_number(result, TAG_TIME_NS, clock_ns(CLOCK_REALTIME));
	put_number(result, TAG_UPTIME_NS, clock_ns(CLOCK_BOOTTIME));
	processes_put(c->platform->cgroup, result);
	return 0;
}

int platform_reclaim(struct container *c, uint64_t request, uint64_t bytes, char *error)
{
	return upkeep_reclaim(c->platform->cgroup, request, bytes, error);
}

void platform_power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
}

static int join_mounts(const struct container *c)
{
	char path[32];
	int fd, error;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)c->init->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	error = fd < 0 || setns(fd, CLONE_NEWNS) ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error;
}

/* The root as it is under what is mounted in it. */
static int plain_root(void)
{
	return open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

int platform_tree_root(const struct container *c, unsigned view, int *root, char *error)
{
	int number;

	if (view == TREE_VIEW_UPPER) {
		*root = openat(c->platform->scratch, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return *root < 0 ? failed(error, errno, "can't open the container's own layer") : 0;
	}
	number = join_mounts(c);
	if (number)
		return failed(error, number, "can't join the container's mounts");
	*root = view == TREE_VIEW_ROOT ? plain_root() : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *root < 0 ? failed(error, errno, "can't open the container's root") : 0;
}
