/* The connection to the host: HELLO, what may be sent when, and the order of sending.
 *
 *   no host --HELLO--> established --socket closed--> no host
 *                      established --HELLO--> established (everything queued is dropped)
 */
#ifndef SLIPWAY_CHANNEL_H
#define SLIPWAY_CHANNEL_H

#include "buffer.h"

/* What to do when a connection can't go on, one of the two: a socket is closed when its host goes, and
 * `closed` called. A virtio port stays open, and wears out; `reopen` makes a good one of it. */
struct channel_end {
	void (*closed)(void);
	int (*reopen)(int fd);
};

/* Serves the open, non-blocking `fd`. */
bool channel_serve(int fd, const struct channel_end *end);
/* Reads and writes as far as it goes now. True if it must be called again without waiting. */
bool channel_service(void);
/* Sends what has been queued, waiting at most `timeout_ms` for the host to take it. */
void channel_flush(int timeout_ms);

/* Queues a message, fragmented as needed. Dropped silently without an established host: whoever must
 * not lose it (answers, events, streams) keeps it and sends again after HELLO. */
void channel_send(uint8_t type, uint8_t flags, uint32_t stream, uint64_t offset,
		  const uint8_t *payload, size_t length);

#endif
