/* What is mounted in a container's root. From pivot_root on every path is resolved inside that root:
 * a hostile image's symlinks lead nowhere else. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices.h"
#include "rootfs.h"

#define TTY_GROUP "5" /* of Debian, Alpine, Fedora and all others */

static void mount_at(const struct launch *l, const char *type, const char *at, unsigned long flags,
		     const char *options)
{
	if (make_directories(at))
		child_fail(l, errno, "mkdir %s in the container: %m", at);
	if (mount(type, at, type, flags, options))
		child_fail(l, errno, "can't mount %s on %s: %m", type, at);
}

static void enter(const struct launch *l)
{
	if (chdir(ROOTFS_PATH) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chdir("/"))
		child_fail(l, errno, "can't change to the container's root: %m");
}

static void make_devices(const struct launch *l)
{
	static const struct {
		const char *path;
		unsigned major, minor;
	} devices[] = {
		{ "/dev/null", 1, 3 },	 { "/dev/zero", 1, 5 },	   { "/dev/full", 1, 7 },
		{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
	};
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },	    { "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" }, { "/proc/self/fd/2", "/dev/stderr" },
		{ "/proc/kcore", "/dev/core" },	    { "pts/ptmx", "/dev/ptmx" },
	};

	umask(0);
	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		if (mknod(devices[i].path, S_IFCHR | 0666,
			  makedev(devices[i].major, devices[i].minor)))
			child_fail(l, errno, "mknod %s: %m", devices[i].path);
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		if (symlink(links[i][0], links[i][1]))
			child_fail(l, errno, "symlink %s: %m", links[i][1]);
	umask(022);
}

static void make_node(const struct launch *l, const char *path, const struct device *d)
{
	char parent[512];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = 0;
		if (make_directories(parent))
			child_fail(l, errno, "mkdir %s in the container: %m", parent);
	}
	umask(0);
	if (mknod(path, d->type | d->mode, makedev(d->major, d->minor)) && errno != EEXIST)
		child_fail(l, errno, "mknod %s: %m", path);
	umask(022);
}

static bool make_every(const struct device *d, void *context)
{
	char path[sizeof(d->name) + 8];

	snprintf(path, sizeof(path), "/dev/%s", d->name);
	make_node(context, path, d);
	return true;
}

static void make_more_devices(struct launch *l)
{
	const struct items *devices = &l->create->devices;
	struct device found;

	if (l->create->privileged)
		devices_each(make_every, l);
	for (size_t i = 0; i < devices->count; i++) {
		if (!device_find(devices->items[i].name, &found))
			child_fail(l, ENODEV, "the virtual machine has no device %s",
				   devices->items[i].name);
		make_node(l, (const char *)devices->items[i].data, &found);
	}
}

static void mount_system(struct launch *l)
{
	const unsigned long closed = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	const unsigned long protected = l->create->privileged ? closed : closed | MS_RDONLY;
	char size[64];

	mount_at(l, "proc", "/proc", closed, NULL);
	mount_at(l, "tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	mount_at(l, "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
		 "newinstance,ptmxmode=0666,mode=0620,gid=" TTY_GROUP);
	mount_at(l, "sysfs", "/sys", protected, NULL);
	mount_at(l, "cgroup2", "/sys/fs/cgroup", protected, NULL);
	mount_at(l, "mqueue", "/dev/mqueue", closed, NULL);
	snprintf(size, sizeof(size), "mode=1777,size=%llu",
		 (unsigned long long)l->create->shm_bytes);
	mount_at(l, "tmpfs", "/dev/shm", closed, size);
	make_devices(l);
	make_more_devices(l);
}

/* Options as for mount(8): flags we know, the rest for tmpfs itself. */
static void mount_tmpfs(const struct launch *l, const struct item *item)
{
	static const struct {
		const char *name;
		unsigned long set, clear;
	} known[] = {
		{ "ro", MS_RDONLY, 0 },		{ "rw", 0, MS_RDONLY },
		{ "nosuid", MS_NOSUID, 0 },	{ "suid", 0, MS_NOSUID },
		{ "nodev", MS_NODEV, 0 },	{ "dev", 0, MS_NODEV },
		{ "noexec", MS_NOEXEC, 0 },	{ "exec", 0, MS_NOEXEC },
		{ "noatime", MS_NOATIME, 0 },	{ "nodiratime", MS_NODIRATIME, 0 },
		{ "relatime", MS_RELATIME, 0 }, { "strictatime", MS_STRICTATIME, 0 },
	};
	const size_t count = sizeof(known) / sizeof(known[0]);
	unsigned long flags = 0;
	char *options = strdup((const char *)item->data), *rest = NULL, *word;
	char *data = calloc(1, item->length + 2);
	size_t i;

	if (!options || !data)
		child_fail(l, ENOMEM, "out of memory");
	for (word = strtok_r(options, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		for (i = 0; i < count && strcmp(word, known[i].name); i++)
			;
		if (i < count)
			flags = (flags | known[i].set) & ~known[i].clear;
		else
			sprintf(data + strlen(data), "%s%s", *data ? "," : "", word);
	}
	mount_at(l, "tmpfs", item->name, flags, data);
	free(options);
	free(data);
}

static void bind_file(const struct launch *l, const struct item *item, int detached)
{
	char parent[4096];
	struct stat status;
	char *slash;
	int fd;

	if (stat(item->name, &status)) {
		snprintf(parent, sizeof(parent), "%s", item->name);
		slash = strrchr(parent, '/');
		if (slash && slash != parent) {
			*slash = 0;
			if (make_directories(parent))
				child_fail(l, errno, "mkdir %s in the container: %m", parent);
		}
		fd = open(item->name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
		if (fd < 0)
			child_fail(l, errno, "can't create %s in the container: %m", item->name);
		close(fd);
	}
	if (move_mount(detached, "", AT_FDCWD, item->name,
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS))
		child_fail(l, errno, "can't put %s into the container: %m", item->name);
	close(detached);
}

static void set_sysctl(const struct launch *l, const struct item *item)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/%s", item->name);
	for (char *at = path + strlen("/proc/sys/"); *at; at++)
		if (*at == '.')
			*at = '/';
		else if (*at == '/')
			*at = '.'; /* as sysctl(8): net.ipv4.conf.eth0/1.forwarding */
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, item->data, item->length) != (ssize_t)item->length)
		child_fail(l, errno, "can't set sysctl %s: %m", item->name);
	close(fd);
}

static void mask(const struct launch *l, const char *path)
{
	struct stat status;

	if (stat(path, &status)) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
	} else if (S_ISDIR(status.st_mode)) {
		if (!mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k,nr_inodes=2"))
			return;
	} else if (!mount("/dev/null", path, NULL, MS_BIND, NULL)) {
		return;
	}
	child_fail(l, errno, "can't mask %s: %m", path);
}

static void protect(const struct launch *l, const char *path)
{
	struct statvfs status = { 0 };

	/* What the mount forbids already stays forbidden; the numbers of ST_ and MS_ are the same. */
	statvfs(path, &status);
	status.f_flag &= ST_NOSUID | ST_NODEV | ST_NOEXEC;
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL)) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
	} else if (!mount(NULL, path, NULL,
			  MS_REMOUNT | MS_BIND | MS_RDONLY | status.f_flag, NULL)) {
		return;
	}
	child_fail(l, errno, "can't make %s read-only: %m", path);
}

void rootfs_enter(struct launch *l, const int *files)
{
	const struct create_spec *s = l->create;

	enter(l);
	umask(022);
	mount_system(l);
	for (size_t i = 0; i < s->tmpfs.count; i++)
		mount_tmpfs(l, &s->tmpfs.items[i]);
	for (size_t i = 0; i < s->files.count; i++)
		bind_file(l, &s->files.items[i], files[i]);
	for (size_t i = 0; i < s->sysctls.count; i++)
		set_sysctl(l, &s->sysctls.items[i]);
	if (make_directories(s->process.cwd))
		child_fail(l, errno, "mkdir %s: %m", s->process.cwd);
	for (size_t i = 0; i < s->masked_paths.count; i++)
		mask(l, s->masked_paths.items[i]);
	for (size_t i = 0; i < s->read_only_paths.count; i++)
		protect(l, s->read_only_paths.items[i]);
	if (s->read_only_root && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
		child_fail(l, errno, "can't make the root read-only: %m");
}
