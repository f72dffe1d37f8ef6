/* Little-endian access and a byte buffer with a ceiling. */
#ifndef SLIPWAY_BUFFER_H
#define SLIPWAY_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows up to `limit` bytes. The first append that doesn't fit, or finds no memory, sets `failed`
 * and everything after it is ignored: check once, at the end. */
struct buffer {
	uint8_t *data;
	size_t length;
	size_t capacity;
	size_t limit;
	bool failed;
};

void buffer_init(struct buffer *b, size_t limit);
void buffer_free(struct buffer *b);
/* Makes room for `count` more bytes and returns where they go; NULL (and `failed`) if there is none. */
uint8_t *buffer_extend(struct buffer *b, size_t count);
bool buffer_append(struct buffer *b, const void *bytes, size_t count);

static inline uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t get_u64(const uint8_t *p)
{
	return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
	put_u16(p, (uint16_t)v);
	put_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
	put_u32(p, (uint32_t)v);
	put_u32(p + 4, (uint32_t)(v >> 32));
}

#endif
