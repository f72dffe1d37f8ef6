/* Which devices a container may make and open (cgroup v2 has no file for it, but a BPF program). */
#ifndef SLIPWAY_DEVICE_RULES_H
#define SLIPWAY_DEVICE_RULES_H

/* Attaches the rules to the cgroup; 0 or an errno. */
int device_rules_attach(int cgroup_fd);

#endif
