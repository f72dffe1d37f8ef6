/* Which devices a container may make and open (cgroup v2 has no file for it, but a BPF program). */
#ifndef SLIPWAY_DEVICE_RULES_H
#define SLIPWAY_DEVICE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_DEVICE_RULES 32

/* A device that is allowed beyond the usual ones. */
struct device_rule {
	bool is_block;
	uint32_t major;
	uint32_t minor;
	uint32_t access; /* of BPF_DEVCG_ACC_ */
};

/* Has the kernel check and translate the usual rules, which it does once, at the latest for the
 * first container; 0 or an errno. */
int device_rules_load(void);

/* Attaches the usual rules and `count` more to the cgroup; 0 or an errno. */
int device_rules_attach(int cgroup_fd, const struct device_rule *more, size_t count);

#endif
