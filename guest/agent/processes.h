/* The processes in a container, as Linux tells of them. */
#ifndef SLIPWAY_PROCESSES_H
#define SLIPWAY_PROCESSES_H

#include "buffer.h"

/* A PROCESS group for each, as many as there is room for. */
void processes_put(int cgroup, struct buffer *result);

#endif
