/* What an output stream keeps until the host has acknowledged it: a ring in memory, then a ring in a
 * file. Bytes are addressed by their offset in the stream. */
#ifndef SLIPWAY_SPOOL_H
#define SLIPWAY_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The oldest bytes lie in memory, newer ones in the file; as long as the file holds any, memory is
 * full (unless reading the file fails). */
struct spool {
	uint8_t *memory;
	size_t memory_size;
	size_t memory_start;
	size_t memory_used;
	int file; /* -1: none */
	uint64_t file_size;
	uint64_t file_start;
	uint64_t file_used;
	uint64_t base; /* offset of the oldest byte kept */
};

bool spool_init(struct spool *s, size_t memory_size);
/* Takes over `fd`, which has room for `size` bytes. */
void spool_set_file(struct spool *s, int fd, uint64_t size);
void spool_free(struct spool *s);
uint64_t spool_end(const struct spool *s);
/* How many bytes can be appended. */
uint64_t spool_space(const struct spool *s);
/* All or nothing; false if there is no space or the file can't be written. */
bool spool_append(struct spool *s, const uint8_t *bytes, size_t count);
/* Copies up to `count` bytes from `offset` (base <= offset <= end); -1 if the file can't be read. */
long spool_read(const struct spool *s, uint64_t offset, uint8_t *to, size_t count);
/* Forgets everything below `offset` (at most end). */
void spool_release(struct spool *s, uint64_t offset);

#endif
