/* Fields of messages (docs/channel.md): u16 tag, u16 zero, u32 length, bytes. */
#ifndef SLIPWAY_FIELDS_H
#define SLIPWAY_FIELDS_H

#include "buffer.h"

#define FIELD_HEADER_SIZE_BYTES 8

struct fields {
	const uint8_t *at;
	size_t left;
};

struct field {
	uint16_t tag;
	uint32_t length;
	const uint8_t *data;
};

/* Returns 1 with the next field, 0 at the end, -1 if the rest is no field. */
int fields_next(struct fields *f, struct field *field);
/* Checks the whole sequence (one level). */
bool fields_valid(struct fields f);
/* First field with that tag. */
bool fields_find(struct fields f, uint16_t tag, struct field *field);
size_t fields_count(struct fields f, uint16_t tag);
/* A number is eight bytes. */
bool field_number(const struct field *field, uint64_t *value);
/* A string holds no NUL. */
bool field_is_string(const struct field *field);
struct fields field_group(const struct field *field);

void put_bytes(struct buffer *b, uint16_t tag, const void *bytes, size_t count);
void put_number(struct buffer *b, uint16_t tag, uint64_t value);
void put_string(struct buffer *b, uint16_t tag, const char *text);
/* A group: the fields put between open and close become its content. */
size_t put_open(struct buffer *b, uint16_t tag);
void put_close(struct buffer *b, size_t opened);

#endif
