#include "frame.h"

#include <string.h>

#include "crc.h"

#define CRC_AT (HEADER_SIZE_BYTES - 4)

enum verdict { FRAME_GOOD, FRAME_SHORT, FRAME_BAD };

void receiver_init(struct receiver *r)
{
	r->start = 0;
	r->end = 0;
	r->lost = false;
	r->losses = 0;
}

uint8_t *receiver_room(struct receiver *r, size_t *space)
{
	if (r->start == r->end) {
		r->start = 0;
		r->end = 0;
	} else if (sizeof(r->data) - r->start < MAX_FRAME_BYTES) {
		memmove(r->data, r->data + r->start, r->end - r->start);
		r->end -= r->start;
		r->start = 0;
	}
	*space = sizeof(r->data) - r->end;
	return r->data + r->end;
}

void receiver_added(struct receiver *r, size_t count)
{
	r->end += count;
}

static enum verdict examine(const uint8_t *at, size_t left, struct frame *f)
{
	uint8_t magic[4];

	put_u32(magic, FRAME_MAGIC);
	if (memcmp(at, magic, left < 4 ? left : 4))
		return FRAME_BAD;
	if (left < HEADER_SIZE_BYTES)
		return FRAME_SHORT;
	f->type = at[4];
	f->flags = at[5];
	f->length = get_u16(at + 6);
	f->stream = get_u32(at + 8);
	f->offset = get_u64(at + 12);
	f->payload = at + HEADER_SIZE_BYTES;
	if (f->length > MAX_PAYLOAD_BYTES || f->type < FRAME_HELLO || f->type > FRAME_PONG)
		return FRAME_BAD;
	if (left < (size_t)HEADER_SIZE_BYTES + f->length)
		return FRAME_SHORT;
	if (crc32_update(crc32_update(0, at, CRC_AT), f->payload, f->length) !=
	    get_u32(at + CRC_AT))
		return FRAME_BAD;
	return FRAME_GOOD;
}

/* Leaves the byte at `start` and goes to the next that may begin a frame. */
static void skip_byte(struct receiver *r)
{
	const uint8_t *next;

	if (!r->lost) {
		r->lost = true;
		r->losses++;
	}
	r->start++;
	next = memchr(r->data + r->start, FRAME_MAGIC & 0xff, r->end - r->start);
	r->start = next ? (size_t)(next - r->data) : r->end;
}

bool receiver_next(struct receiver *r, struct frame *f)
{
	while (r->start < r->end) {
		switch (examine(r->data + r->start, r->end - r->start, f)) {
		case FRAME_SHORT:
			return false;
		case FRAME_BAD:
			skip_byte(r);
			break;
		case FRAME_GOOD:
			r->start += HEADER_SIZE_BYTES + f->length;
			if (f->type == FRAME_HELLO)
				r->lost = false;
			if (!r->lost)
				return true;
			break;
		}
	}
	return false;
}

size_t frame_seal(uint8_t *to, const struct frame *f)
{
	uint32_t crc;

	put_u32(to, FRAME_MAGIC);
	to[4] = f->type;
	to[5] = f->flags;
	put_u16(to + 6, f->length);
	put_u32(to + 8, f->stream);
	put_u64(to + 12, f->offset);
	crc = crc32_update(0, to, CRC_AT);
	put_u32(to + CRC_AT, crc32_update(crc, to + HEADER_SIZE_BYTES, f->length));
	return (size_t)HEADER_SIZE_BYTES + f->length;
}
