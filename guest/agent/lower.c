/* The layers below a container's own, mounted once more for a look at them. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "disks.h"
#include "rootfs.h"
#include "tree.h"

#define OPTIONS_BYTES 4096
#define DISK_TIMEOUT_MS 10000

static void mount_layer(struct tree_job *job, const struct disk *d, const char *at)
{
	if (mkdir(at, 0755) || mknod("disk", S_IFBLK | 0600, d->device) ||
	    mount("disk", at, "squashfs", MS_RDONLY, NULL))
		tree_fail(job, errno, "layer %s can't be mounted: %s", d->serial, strerror(errno));
	unlink("disk");
}

static void mount_layers(struct tree_job *job)
{
	size_t count = job->layers.count;
	struct disk *disks = calloc(count, sizeof(*disks));
	const char *missing = "";
	char at[24];

	if (!disks)
		tree_fail(job, ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		disks[i].serial = job->layers.items[i];
	if (disks_wait(disks, count, DISK_TIMEOUT_MS, &missing))
		tree_fail(job, ENODEV, "layer %s is not there", missing);
	for (size_t i = 0; i < count; i++) {
		snprintf(at, sizeof(at), "%zu", i);
		mount_layer(job, &disks[i], at);
	}
	free(disks);
}

/* An empty directory makes two of one: overlayfs wants more than one layer. */
static void put_together(struct tree_job *job)
{
	char options[OPTIONS_BYTES];
	size_t used = (size_t)sprintf(options, "lowerdir=");

	for (size_t i = job->layers.count; i-- > 0 && used < sizeof(options) - 32;)
		if (!layer_is_hidden(&job->layers, i))
			used += (size_t)sprintf(options + used, "%zu:", i);
	sprintf(options + used, "e");
	if (mkdir("e", 0755) || mkdir("r", 0755) || mount("overlay", "r", "overlay", MS_RDONLY, options))
		tree_fail(job, errno, "the layers can't be put together: %s", strerror(errno));
}

int lower_open(struct tree_job *job)
{
	int fd;

	if (!job->layers.count)
		return -1;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("slipway", LAYERS_PATH, "tmpfs", 0, "mode=755") || chdir(LAYERS_PATH))
		tree_fail(job, errno, "can't prepare a place for the layers: %s", strerror(errno));
	mount_layers(job);
	put_together(job);
	fd = open("r", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		tree_fail(job, errno, "can't open the layers: %s", strerror(errno));
	return fd;
}
