/* From the kernel's start of /init until the channel's modules are there. */
#ifndef SLIPWAY_BOOT_H
#define SLIPWAY_BOOT_H

#include <stdbool.h>

/* Mounts, a root that can be pivoted from, the modules that the channel needs; the others load in the
 * background. Dies (and the guest with it) if something is missing. */
void boot_system(void);
/* In a process of a container's set-up: waits until all modules are loaded. */
bool boot_await_modules(void);

#endif
