/* The kernel's memory blocks, in the directory that sysfs shows them in. */
#ifndef SLIPWAY_MEMORY_BLOCKS_H
#define SLIPWAY_MEMORY_BLOCKS_H

#include <stdint.h>

#define MEMORY_BLOCKS "/sys/devices/system/memory"

/* How much memory is in blocks that are online; 0 if the kernel doesn't tell. */
uint64_t memory_online_bytes(const char *directory);

#endif
