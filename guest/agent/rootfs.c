#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "console.h"
#include "disks.h"

#define BASE "/m" /* short: the overlay's options must fit into a page */
#define CONTENT_TIMEOUT_NS 10000000000ull
#define CONTENT_POLL_US 500
#define HEAD_BYTES 4096 /* has the superblock of squashfs and of ext4 */
#define DISK_TIMEOUT_MS 10000
#define MOUNT_OPTIONS_BYTES 4096

static void make(const struct launch *l, const char *path)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		child_fail(l, errno, "mkdir %s: %m", path);
}

int make_directories(const char *path)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (size_t i = 1; i <= length; i++) {
		if (path[i] && path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0755) && errno != EEXIST)
			return -1;
	}
	return 0;
}

/* Whether the disk "disk" can be read, and there is something on it: 1, 0, or -1 with errno. A slot must
 * not be in use: mounting what another container has not let go yet would give that one's file system,
 * whatever image is behind the disk by now. */
static int is_filled(const struct disk *d)
{
	static const char zeros[HEAD_BYTES];
	char head[HEAD_BYTES];
	int fd = open("disk", O_RDONLY | O_CLOEXEC | (d->is_slot ? O_EXCL : 0));
	ssize_t count;

	if (fd < 0)
		return errno == ENXIO || errno == EBUSY ? 0 : -1;
	count = read(fd, head, sizeof(head));
	close(fd);
	return count < 0 ? -1 : memcmp(head, zeros, (size_t)count) != 0;
}

/* A plugged disk is in sysfs for a moment before it can be opened (Linux, block/genhd.c,
 * device_add_disk); until then the kernel answers ENXIO. One that the template had is always there,
 * and reads as zeros until the host has put an image behind it. */
static int await_content(const struct disk *d)
{
	uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + CONTENT_TIMEOUT_NS;
	int filled;

	while (!(filled = is_filled(d))) {
		if (clock_ns(CLOCK_MONOTONIC) >= deadline_ns) {
			errno = ENODATA; /* or in use for good */
			return -1;
		}
		usleep(CONTENT_POLL_US);
	}
	return filled;
}

static void mount_disk(const struct launch *l, const struct disk *d, const char *at,
		       const char *type, unsigned long flags, const char *options)
{
	make(l, at);
	if (mknod("disk", S_IFBLK | 0600, d->device))
		child_fail(l, errno, "mknod for disk %s: %m", d->serial);
	if (await_content(d) < 0)
		child_fail(l, errno, "disk %s can't be read: %m", d->serial);
	if (mount("disk", at, type, flags, options))
		child_fail(l, errno, "disk %s can't be mounted as %s: %m", d->serial, type);
	unlink("disk");
}

static void mount_disks(const struct launch *l)
{
	const struct strings *layers = &l->create->layers;
	struct disk *disks = calloc(layers->count + 1, sizeof(*disks));
	const char *missing = "";
	char at[24];

	if (!disks)
		child_fail(l, ENOMEM, "out of memory");
	for (size_t i = 0; i < layers->count; i++)
		disks[i].serial = layers->items[i];
	disks[layers->count].serial = l->create->scratch;
	if (disks_wait(disks, layers->count + 1, DISK_TIMEOUT_MS, &missing))
		child_fail(l, ENODEV, "disk %s did not appear within %d s", missing,
			   DISK_TIMEOUT_MS / 1000);
	for (size_t i = 0; i < layers->count; i++) {
		snprintf(at, sizeof(at), "%zu", i);
		mount_disk(l, &disks[i], at, "squashfs", MS_RDONLY, NULL);
	}
	mount_disk(l, &disks[layers->count], "s", "ext4", 0, "noinit_itable,errors=remount-ro");
	free(disks);
}

static void mount_overlay(const struct launch *l)
{
	char options[MOUNT_OPTIONS_BYTES];
	size_t used = (size_t)sprintf(options, "upperdir=s/upper,workdir=s/work,lowerdir=");
	size_t count = l->create->layers.count;

	make(l, "s/upper");
	make(l, "s/work");
	make(l, "r");
	if (!count) { /* an image without layers: overlayfs wants one nevertheless */
		make(l, "0");
		count = 1;
	}
	for (size_t i = count; i-- > 0 && used < sizeof(options) - 8;)
		if (!layer_is_hidden(&l->create->layers, i))
			used += (size_t)sprintf(options + used, "%zu:", i);
	options[used - 1] = 0;
	if (mount("overlay", "r", "overlay", 0, options))
		child_fail(l, errno, "the layers can't be put together: overlay: %m");
}

/* A file that lasts as long as the scratch disk, all of its room taken at once: a container that has
 * filled the disk must not be what stops its own log. */
static int make_spool(const struct launch *l)
{
	int fd;

	if (!l->create->spill_bytes)
		return -1;
	fd = open("s/spool", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		child_fail(l, errno, "can't make the spool on the scratch disk: %m");
	if (fallocate(fd, 0, 0, (off_t)l->create->spill_bytes))
		child_fail(l, errno, "no room for a spool of %llu bytes on the scratch disk: %m",
			   (unsigned long long)l->create->spill_bytes);
	return fd;
}

static void report_scratch(const struct launch *l)
{
	int fds[2] = { open("s", O_RDONLY | O_DIRECTORY | O_CLOEXEC), make_spool(l) };

	if (fds[0] < 0)
		child_fail(l, errno, "can't open the scratch disk: %m");
	child_report(l, CONTROL_SCRATCH, l->create->spill_bytes, NULL, fds, fds[1] < 0 ? 1 : 2);
	close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
}

static int write_file(const struct launch *l, size_t i)
{
	const struct item *file = &l->create->files.items[i];
	char path[32];
	int fd, detached;

	snprintf(path, sizeof(path), "s/files/%zu", i);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, file->data, file->length) != (ssize_t)file->length ||
	    fchmod(fd, file->mode ? file->mode : 0644))
		child_fail(l, errno, "can't write %s to the scratch disk: %m", file->name);
	close(fd);
	detached = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (detached < 0)
		child_fail(l, errno, "can't prepare %s: %m", file->name);
	return detached;
}

void rootfs_mount(struct launch *l, int **files)
{
	size_t count = l->create->files.count;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		child_fail(l, errno, "can't make mounts private: %m");
	if (mount("slipway", BASE, "tmpfs", 0, "mode=755") || chdir(BASE))
		child_fail(l, errno, "can't mount a tmpfs on " BASE ": %m");
	if (!boot_await_modules())
		child_fail(l, EIO, "the guest's kernel modules didn't load: see the boot console");
	mount_disks(l);
	report_scratch(l);
	mount_overlay(l);
	*files = calloc(count + 1, sizeof(int));
	if (!*files)
		child_fail(l, ENOMEM, "out of memory");
	make(l, "s/files");
	for (size_t i = 0; i < count; i++)
		(*files)[i] = write_file(l, i);
}
