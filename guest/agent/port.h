/* The virtio port called slipway.0. */
#ifndef SLIPWAY_PORT_H
#define SLIPWAY_PORT_H

/* Opens it, waiting until it appears; -1 (with a word on the console) if it doesn't. */
int port_open(void);
/* Resets the device of the port that `fd` is, and opens the port anew. QEMU (7.2) never gives back a
 * buffer that it holds when a host leaves without having read all: once all 128 are gone nothing
 * can be written, whoever connects. */
int port_reopen(int fd);

#endif
