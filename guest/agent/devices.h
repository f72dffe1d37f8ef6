/* Devices that the guest's kernel has, by the names it gives them. */
#ifndef SLIPWAY_DEVICES_H
#define SLIPWAY_DEVICES_H

#include <stdbool.h>
#include <sys/types.h>

struct device {
	mode_t type; /* S_IFCHR or S_IFBLK */
	unsigned major;
	unsigned minor;
	char name[128]; /* below /dev */
	mode_t mode; /* permission bits */
};

/* Calls `use` for each until it returns false; gives whether all were seen. Needs /sys. */
bool devices_each(bool (*use)(const struct device *d, void *context), void *context);
/* By its path, with or without /dev/; false if there is none. */
bool device_find(const char *path, struct device *d);

#endif
