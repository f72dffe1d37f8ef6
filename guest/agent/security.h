/* What a process may do: user, groups, capabilities, seccomp, no_new_privs. */
#ifndef SLIPWAY_SECURITY_H
#define SLIPWAY_SECURITY_H

#include "launch.h"

/* Last step before execve, in the container's namespaces and root. Adds HOME to the environment if it
 * has none. Ends in child_fail() on any fault. */
void security_apply(struct launch *l);

#endif
