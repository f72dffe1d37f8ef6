/* From the kernel's start of /init to an open channel. */
#ifndef SLIPWAY_BOOT_H
#define SLIPWAY_BOOT_H

#include <stdbool.h>

/* Mounts, a root that can be pivoted from, the modules that the channel needs; the others load in the
 * background. Dies (and the guest with it) if something is missing. */
void boot_system(void);
/* Opens the virtio port called slipway.0, waiting until it appears. Dies after a deadline. */
int boot_open_port(void);
/* In a process of a container's set-up: waits until all modules are loaded. */
bool boot_await_modules(void);

#endif
