#include "buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_init(struct buffer *b, size_t limit)
{
	memset(b, 0, sizeof(*b));
	b->limit = limit;
}

void buffer_free(struct buffer *b)
{
	free(b->data);
	buffer_init(b, b->limit);
}

uint8_t *buffer_extend(struct buffer *b, size_t count)
{
	uint8_t *grown;
	size_t capacity;

	if (b->failed || count > b->limit - b->length) {
		b->failed = true;
		return NULL;
	}
	if (count > b->capacity - b->length) {
		capacity = b->capacity ? b->capacity : 256;
		while (capacity - b->length < count)
			capacity *= 2;
		grown = realloc(b->data, capacity);
		if (!grown) {
			b->failed = true;
			return NULL;
		}
		b->data = grown;
		b->capacity = capacity;
	}
	b->length += count;
	return b->data + b->length - count;
}

bool buffer_append(struct buffer *b, const void *bytes, size_t count)
{
	uint8_t *to;

	if (!count)
		return !b->failed;
	to = buffer_extend(b, count);
	if (!to)
		return false;
	memcpy(to, bytes, count);
	return true;
}
