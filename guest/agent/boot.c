#include "boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cgroup.h"
#include "console.h"
#include "hello.h"
#include "upkeep.h"

#define MODULE_LIST "/etc/modules.load"
/* A line that begins with it ends the part that the channel needs. */
#define LIST_SEPARATOR '#'
#define MODULES_DONE "/run/modules.loaded"
#define MODULES_FAILED "/run/modules.failed"
#define MODULES_TIMEOUT_NS 30000000000ull
#define POLL_US 1000
#define RESERVE_KIB 4096

__attribute__((format(printf, 1, 2)))
_Noreturn static void die(const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	say("%s", text);
	_exit(1); /* process 1: the kernel panics, and the host reads the console */
}

static void mount_or_die(const char *type, const char *at, unsigned long flags, const char *options)
{
	mkdir(at, 0755);
	if (mount(type, at, type, flags, options))
		die("can't mount %s on %s: %m", type, at);
}

/* The initramfs is the root of the mount tree and has no parent, so nothing can pivot away from it.
 * Bound over itself it has one, without a copy. */
static void make_root_movable(void)
{
	mkdir("/b", 0755);
	if (mount("/", "/b", NULL, MS_BIND | MS_REC, NULL) || chdir("/b") ||
	    mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("can't put the root over itself: %m");
}

static void open_console(void)
{
	int fd;

	mknod("/dev/console", S_IFCHR | 0600, makedev(5, 1));
	mknod("/dev/null", S_IFCHR | 0666, makedev(1, 3));
	mknod("/dev/urandom", S_IFCHR | 0666, makedev(1, 9));
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* The modules lie beside the agent in one archive, made from one package whose signature apt has
 * checked. Verifying each again costs 0.25 s under emulation, so the kernel is told to treat them as
 * altered; one that insists on signatures gets its way. */
static int insert_module(int fd)
{
	if (!syscall(SYS_finit_module, fd, "", MODULE_INIT_IGNORE_MODVERSIONS))
		return 0;
	if (errno != EKEYREJECTED && errno != EPERM)
		return -1;
	return (int)syscall(SYS_finit_module, fd, "", 0);
}

/* ENODEV: the module is for hardware, a CPU feature perhaps, that isn't there. */
static bool load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool done = fd >= 0 && (!insert_module(fd) || errno == EEXIST || errno == ENODEV);

	if (!done)
		say("can't load %s: %m", path);
	if (fd >= 0)
		close(fd);
	return done;
}

/* False at the end of the list, and of its first part. */
static bool next_module(FILE *list, char line[512])
{
	while (fgets(line, 512, list) && *line != LIST_SEPARATOR) {
		line[strcspn(line, "\n")] = 0;
		if (*line)
			return true;
	}
	return false;
}

/* The rest, while the host is thinking about what to run. */
static void load_in_background(FILE *list)
{
	char line[512];
	bool good = true;
	int fd;

	switch (fork()) {
	case -1:
		die("fork: %m");
	case 0:
		setpriority(PRIO_PROCESS, 0, 10);
		while (next_module(list, line))
			good = load_module(line) && good;
		fd = open(good ? MODULES_DONE : MODULES_FAILED, O_CREAT | O_WRONLY, 0600);
		_exit(fd < 0);
	}
}

static void load_modules(void)
{
	FILE *list = fopen(MODULE_LIST, "re");
	char line[512];

	if (!list)
		die("can't open " MODULE_LIST ": %m");
	while (next_module(list, line))
		if (!load_module(line))
			die("the channel's modules are not complete");
	hello_stage("modules");
	load_in_background(list);
	fclose(list);
}

/* Called in a process that has no other tie to the loader than the file system. */
bool boot_await_modules(void)
{
	uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + MODULES_TIMEOUT_NS;

	while (access(MODULES_DONE, F_OK)) {
		if (!access(MODULES_FAILED, F_OK) || clock_ns(CLOCK_MONOTONIC) > deadline_ns)
			return false;
		usleep(POLL_US);
	}
	return true;
}

/* For the sake of huge pages the kernel keeps up to 45 MiB free in guests of 512 MiB and more, which no
 * container could ever use. 4 MiB is what it keeps without them in a guest of 1 GiB. */
static void lower_reserve(void)
{
	static const char path[] = "/proc/sys/vm/min_free_kbytes";
	FILE *file = fopen(path, "r+e");
	unsigned long kept_kib = 0;

	if (file && fscanf(file, "%lu", &kept_kib) == 1 && kept_kib > RESERVE_KIB) {
		rewind(file);
		fprintf(file, "%d", RESERVE_KIB);
	}
	if (!file || fclose(file))
		say("can't lower %s: %m", path);
}

void boot_system(void)
{
	static const unsigned long closed = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	hello_stage("kernel");
	make_root_movable();
	mount_or_die("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k");
	open_console();
	mount_or_die("proc", "/proc", closed, NULL);
	mount_or_die("sysfs", "/sys", closed, NULL);
	mount_or_die("cgroup2", CGROUP_ROOT, closed, NULL);
	lower_reserve();
	upkeep_settings();
	mkdir("/m", 0755);
	mkdir("/run", 0755);
	if (!cgroup_enable())
		die("can't enable the cgroup controllers: %m");
	hello_stage("mounts");
	load_modules();
}
