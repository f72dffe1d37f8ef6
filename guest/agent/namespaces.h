/* The namespaces of a container. */
#ifndef SLIPWAY_NAMESPACES_H
#define SLIPWAY_NAMESPACES_H

#include <sched.h>

/* All but the cgroup namespace, which must be made inside the cgroup, and the user namespace: the VM
 * is the boundary, and Docker has none by default. */
#define CONTAINER_NAMESPACES \
	(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)

#endif
