#include "fields.h"

#include <string.h>

int fields_next(struct fields *f, struct field *field)
{
	uint32_t length;

	if (!f->left)
		return 0;
	if (f->left < FIELD_HEADER_SIZE_BYTES || get_u16(f->at + 2))
		return -1;
	length = get_u32(f->at + 4);
	if (length > f->left - FIELD_HEADER_SIZE_BYTES)
		return -1;
	field->tag = get_u16(f->at);
	field->length = length;
	field->data = f->at + FIELD_HEADER_SIZE_BYTES;
	f->at += FIELD_HEADER_SIZE_BYTES + length;
	f->left -= FIELD_HEADER_SIZE_BYTES + length;
	return 1;
}

bool fields_valid(struct fields f)
{
	struct field field;
	int got;

	while ((got = fields_next(&f, &field)) > 0)
		;
	return got == 0;
}

bool fields_find(struct fields f, uint16_t tag, struct field *field)
{
	while (fields_next(&f, field) > 0)
		if (field->tag == tag)
			return true;
	return false;
}

size_t fields_count(struct fields f, uint16_t tag)
{
	struct field field;
	size_t count = 0;

	while (fields_next(&f, &field) > 0)
		count += field.tag == tag;
	return count;
}

bool field_number(const struct field *field, uint64_t *value)
{
	if (field->length != 8)
		return false;
	*value = get_u64(field->data);
	return true;
}

bool field_is_string(const struct field *field)
{
	return !field->length || !memchr(field->data, 0, field->length);
}

struct fields field_group(const struct field *field)
{
	return (struct fields){ field->data, field->length };
}

void put_bytes(struct buffer *b, uint16_t tag, const void *bytes, size_t count)
{
	uint8_t *header = buffer_extend(b, FIELD_HEADER_SIZE_BYTES);

	if (!header)
		return;
	put_u16(header, tag);
	put_u16(header + 2, 0);
	put_u32(header + 4, (uint32_t)count);
	buffer_append(b, bytes, count);
}

void put_number(struct buffer *b, uint16_t tag, uint64_t value)
{
	uint8_t bytes[8];

	put_u64(bytes, value);
	put_bytes(b, tag, bytes, sizeof(bytes));
}

void put_string(struct buffer *b, uint16_t tag, const char *text)
{
	put_bytes(b, tag, text, strlen(text));
}

size_t put_open(struct buffer *b, uint16_t tag)
{
	put_bytes(b, tag, NULL, 0);
	return b->length;
}

void put_close(struct buffer *b, size_t opened)
{
	if (!b->failed)
		put_u32(b->data + opened - 4, (uint32_t)(b->length - opened));
}
