/* Frames (docs/channel.md): receiver with resynchronisation, and the encoder. */
#ifndef SLIPWAY_FRAME_H
#define SLIPWAY_FRAME_H

#include "buffer.h"
#include "protocol.h"

struct frame {
	uint8_t type;
	uint8_t flags;
	uint16_t length;
	uint32_t stream;
	uint64_t offset;
	const uint8_t *payload;
};

#define RECEIVER_SIZE_BYTES (2 * MAX_FRAME_BYTES)

/* Bytes go in through receiver_room() and receiver_added(), frames come out of receiver_next().
 * `lost` is set by the first byte that belongs to no valid frame and cleared by a HELLO; while it is
 * set every other frame is skipped. `losses` counts how often it was set. */
struct receiver {
	uint8_t data[RECEIVER_SIZE_BYTES];
	size_t start;
	size_t end;
	bool lost;
	unsigned long losses;
};

void receiver_init(struct receiver *r);
/* Where to put bytes; never less than one byte once receiver_next() has returned false. */
uint8_t *receiver_room(struct receiver *r, size_t *space);
void receiver_added(struct receiver *r, size_t count);
/* The payload stays valid until the next call on this receiver. False: more bytes are needed. */
bool receiver_next(struct receiver *r, struct frame *f);

/* Writes header and CRC in front of `f->length` payload bytes that lie already at
 * `to + HEADER_SIZE_BYTES` (`f->payload` is not looked at). Returns the frame's size. */
size_t frame_seal(uint8_t *to, const struct frame *f);

#endif
