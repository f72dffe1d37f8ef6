/* Disks by their serial numbers. */
#ifndef SLIPWAY_DISKS_H
#define SLIPWAY_DISKS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct disk {
	const char *serial;
	dev_t device; /* 0: not there yet */
	bool is_slot; /* always there; the host puts one image after the other behind it */
};

/* Waits until all are there. Returns 0, or ENODEV with the first missing one in `*missing`. */
int disks_wait(struct disk *disks, size_t count, unsigned timeout_ms, const char **missing);

#endif
