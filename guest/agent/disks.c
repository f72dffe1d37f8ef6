#include "disks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "console.h"

#define POLL_US 2000
#define SERIAL_SIZE 64
#define VPD_HEADER_BYTES 4 /* SCSI SPC, unit serial number page: type, page, length */

static ssize_t read_file(const char *directory, const char *name, char *to, size_t size)
{
	char path[300];
	ssize_t count;
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	count = read(fd, to, size - 1);
	close(fd);
	if (count >= 0)
		to[count] = 0;
	return count;
}

static void trim(char *text)
{
	char *start = text + strspn(text, " ");
	size_t length = strcspn(start, "\n");

	while (length && start[length - 1] == ' ')
		length--;
	memmove(text, start, length);
	text[length] = 0;
}

static int read_serial(const char *name, char serial[SERIAL_SIZE])
{
	ssize_t count = read_file(name, "device/vpd_pg80", serial, SERIAL_SIZE);

	if (count >= VPD_HEADER_BYTES) {
		memmove(serial, serial + VPD_HEADER_BYTES, (size_t)count - VPD_HEADER_BYTES + 1);
	} else if (read_file(name, "serial", serial, SERIAL_SIZE) < 0) {
		return -1;
	}
	trim(serial);
	return 0;
}

static dev_t read_device(const char *name)
{
	unsigned major, minor;
	char text[32];

	if (read_file(name, "dev", text, sizeof(text)) < 0 ||
	    sscanf(text, "%u:%u", &major, &minor) != 2)
		return 0;
	return makedev(major, minor);
}

static size_t scan(struct disk *disks, size_t count)
{
	DIR *directory = opendir("/sys/block");
	char serial[SERIAL_SIZE];
	struct dirent *entry;
	size_t missing = 0;

	while (directory && (entry = readdir(directory))) {
		if ((strncmp(entry->d_name, "sd", 2) && strncmp(entry->d_name, "vd", 2)) ||
		    read_serial(entry->d_name, serial))
			continue;
		for (size_t i = 0; i < count; i++) {
			if (disks[i].device || strcmp(disks[i].serial, serial))
				continue;
			disks[i].device = read_device(entry->d_name);
			disks[i].is_slot = *entry->d_name == 'v';
		}
	}
	if (directory)
		closedir(directory);
	for (size_t i = 0; i < count; i++)
		missing += !disks[i].device;
	return missing;
}

int disks_wait(struct disk *disks, size_t count, unsigned timeout_ms, const char **missing)
{
	uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;

	while (scan(disks, count)) {
		if (clock_ns(CLOCK_MONOTONIC) >= deadline_ns) {
			for (size_t i = count; i-- > 0;)
				if (!disks[i].device)
					*missing = disks[i].serial;
			return ENODEV;
		}
		/* Sysfs and not uevents: those go to the network namespace that the container's
		 * set-up has left already. */
		usleep(POLL_US);
	}
	return 0;
}
