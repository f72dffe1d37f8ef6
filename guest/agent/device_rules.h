/* Which devices a container may make and open (cgroup v2 has no file for it, but a BPF program). */
#ifndef SLIPWAY_DEVICE_RULES_H
#define SLIPWAY_DEVICE_RULES_H

/* Has the kernel check and translate the rules, which it does once, at the latest for the first
 * container; 0 or an errno. */
int device_rules_load(void);

/* Attaches the rules to the cgroup; 0 or an errno. */
int device_rules_attach(int cgroup_fd);

#endif
