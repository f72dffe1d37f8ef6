/* The container's root: layers, scratch disk, overlay; then everything mounted in it. */
#ifndef SLIPWAY_ROOTFS_H
#define SLIPWAY_ROOTFS_H

#include "launch.h"

/* In the container's fresh mount namespace, still with the agent's root: mounts the disks and the
 * overlay, reports the scratch disk, prepares the FILEs; ends with the overlay at ROOTFS_PATH.
 * `*files` gets one detached mount per FILE. */
void rootfs_mount(struct launch *l, int **files);
#define LAYERS_PATH "/m"
#define ROOTFS_PATH "/m/r"

/* In the container's cgroup and new cgroup namespace: makes ROOTFS_PATH the root and mounts
 * everything else in it. */
void rootfs_enter(struct launch *l, const int *files);

/* `mkdir -p`; 0 or -1 with errno. */
int make_directories(const char *path);

#endif
