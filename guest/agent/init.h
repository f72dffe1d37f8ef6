/* --init: the agent's binary as a container's process 1. */
#ifndef SLIPWAY_INIT_H
#define SLIPWAY_INIT_H

#define INIT_ARGV0 "slipway-init"
#define INIT_CONTROL_FD 3

/* `argv`: what to execute, then its argv. Never returns to the container: exits like its child. */
int container_init(char **argv);

#endif
