#include "spool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t least(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}

bool spool_init(struct spool *s, size_t memory_size)
{
	memset(s, 0, sizeof(*s));
	s->file = -1;
	s->memory = malloc(memory_size);
	s->memory_size = s->memory ? memory_size : 0;
	return s->memory != NULL;
}

void spool_set_file(struct spool *s, int fd, uint64_t size)
{
	s->file = fd;
	s->file_size = size;
}

void spool_free(struct spool *s)
{
	free(s->memory);
	s->memory = NULL;
	if (s->file >= 0)
		close(s->file);
	s->file = -1;
}

uint64_t spool_end(const struct spool *s)
{
	return s->base + s->memory_used + s->file_used;
}

uint64_t spool_space(const struct spool *s)
{
	if (s->file_used)
		return s->file_size - s->file_used;
	return s->memory_size - s->memory_used + s->file_size;
}

/* Moves `count` bytes between the file ring and memory, at `position` bytes after its start. */
static bool file_transfer(const struct spool *s, uint64_t position, uint8_t *bytes, size_t count,
			  bool writing)
{
	while (count) {
		uint64_t at = (s->file_start + position) % s->file_size;
		size_t part = least(count, s->file_size - at);
		ssize_t done = writing ? pwrite(s->file, bytes, part, (off_t)at) :
					 pread(s->file, bytes, part, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		position += (uint64_t)done;
		bytes += done;
		count -= (size_t)done;
	}
	return true;
}

static void memory_put(struct spool *s, const uint8_t *bytes, size_t count)
{
	size_t at = (s->memory_start + s->memory_used) % s->memory_size;
	size_t part = least(count, s->memory_size - at);

	memcpy(s->memory + at, bytes, part);
	memcpy(s->memory, bytes + part, count - part);
	s->memory_used += count;
}

bool spool_append(struct spool *s, const uint8_t *bytes, size_t count)
{
	size_t in_memory = 0;

	if (count > spool_space(s))
		return false;
	if (!s->file_used)
		in_memory = least(count, s->memory_size - s->memory_used);
	/* The file first: it may fail, and then nothing has changed. */
	if (count > in_memory && !file_transfer(s, s->file_used, (uint8_t *)bytes + in_memory,
						count - in_memory, true))
		return false;
	memory_put(s, bytes, in_memory);
	s->file_used += count - in_memory;
	return true;
}

long spool_read(const struct spool *s, uint64_t offset, uint8_t *to, size_t count)
{
	uint64_t position = offset - s->base;
	size_t from_memory = 0;

	count = least(count, spool_end(s) - offset);
	if (position < s->memory_used) {
		size_t at = (s->memory_start + (size_t)position) % s->memory_size;
		size_t part;

		from_memory = least(count, s->memory_used - position);
		part = least(from_memory, s->memory_size - at);
		memcpy(to, s->memory + at, part);
		memcpy(to + part, s->memory, from_memory - part);
		position = 0;
	} else {
		position -= s->memory_used;
	}
	if (count > from_memory &&
	    !file_transfer(s, position, to + from_memory, count - from_memory, false))
		return from_memory ? (long)from_memory : -1;
	return (long)count;
}

static void refill(struct spool *s)
{
	while (s->file_used && s->memory_used < s->memory_size) {
		size_t at = (s->memory_start + s->memory_used) % s->memory_size;
		size_t part = least(s->memory_size - s->memory_used, s->memory_size - at);

		part = least(part, s->file_used);
		if (!file_transfer(s, 0, s->memory + at, part, false))
			return;
		s->memory_used += part;
		s->file_start = (s->file_start + part) % s->file_size;
		s->file_used -= part;
	}
}

void spool_release(struct spool *s, uint64_t offset)
{
	uint64_t count, part;

	if (offset <= s->base)
		return;
	count = offset - s->base;
	s->base = offset;
	part = least(count, s->memory_used);
	s->memory_start = (s->memory_start + (size_t)part) % s->memory_size;
	s->memory_used -= (size_t)part;
	count -= part;
	if (count) {
		s->file_start = (s->file_start + count) % s->file_size;
		s->file_used -= count;
	}
	/* Begin at the front again, so that a quiet stream touches few pages. */
	if (!s->memory_used)
		s->memory_start = 0;
	if (!s->file_used)
		s->file_start = 0;
	refill(s);
}
