#include "tree_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "spec.h"

#define NS_PER_S 1000000000ull
#define WRITE_BYTES 65536
#define INPUT_BYTES (TREE_HEADER_SIZE_BYTES + MAX_TREE_RECORD_BYTES)

ssize_t tree_record_parse(const uint8_t *bytes, size_t length, struct tree_record *r)
{
	uint32_t size;

	if (length < TREE_HEADER_SIZE_BYTES)
		return 0;
	size = get_u32(bytes);
	if (size > MAX_TREE_RECORD_BYTES || bytes[5] || get_u16(bytes + 6) ||
	    bytes[4] < TREE_RECORD_ENTRY || bytes[4] > TREE_RECORD_END)
		return -1;
	if (length - TREE_HEADER_SIZE_BYTES < size)
		return 0;
	r->kind = bytes[4];
	r->payload = bytes + TREE_HEADER_SIZE_BYTES;
	r->length = size;
	return (ssize_t)(TREE_HEADER_SIZE_BYTES + size);
}

static bool get_name(struct fields f, uint16_t tag, char to[TREE_NAME_SIZE])
{
	struct field field;

	to[0] = 0;
	if (!fields_find(f, tag, &field))
		return true;
	if (field.length >= TREE_NAME_SIZE || !field_is_string(&field))
		return false;
	memcpy(to, field.data, field.length);
	to[field.length] = 0;
	return true;
}

/* Relative, and no part of it leads upwards. */
static bool stays_inside(const char *name)
{
	if (!*name || *name == '/')
		return false;
	for (const char *part = name; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (!strncmp(part, "..", 2) && (!part[2] || part[2] == '/'))
			return false;
	}
	return true;
}

static bool is_known_type(mode_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
	       S_ISFIFO(mode);
}

static bool get_numbers(struct fields f, struct tree_entry *e)
{
	uint64_t mode = 0, uid = 0, gid = 0, time_ns = 0, device = 0, hard = 0;

	if (!number_parse(f, TAG_MODE, &mode) || !number_parse(f, TAG_UID, &uid) ||
	    !number_parse(f, TAG_GID, &gid) || !number_parse(f, TAG_TIME_NS, &time_ns) ||
	    !number_parse(f, TAG_SIZE_BYTES, &e->size) || !number_parse(f, TAG_IS_HARD_LINK, &hard) ||
	    !number_parse(f, TAG_DEVICE_NUMBER, &device))
		return false;
	/* All ones mean "leave it" to chown(2). */
	if (mode > 0177777 || uid >= UINT32_MAX || gid >= UINT32_MAX || hard > 1 ||
	    e->size > INT64_MAX || time_ns > INT64_MAX || device >> 32 > 0xfff ||
	    (device & UINT32_MAX) > 0xfffff)
		return false;
	e->mode = (mode_t)mode;
	e->uid = (uid_t)uid;
	e->gid = (gid_t)gid;
	e->mtime = (struct timespec){ (time_t)(time_ns / NS_PER_S), (long)(time_ns % NS_PER_S) };
	e->device = makedev((unsigned)(device >> 32), (unsigned)device);
	e->is_hard_link = hard;
	return true;
}

bool tree_entry_parse(const struct tree_record *r, struct tree_entry *e)
{
	struct fields f = { r->payload, r->length };

	e->size = 0;
	e->fields = f;
	if (!fields_valid(f) || !get_name(f, TAG_NAME, e->name) || !get_name(f, TAG_LINK, e->link) ||
	    !get_numbers(f, e))
		return false;
	if (!stays_inside(e->name) || !is_known_type(e->mode))
		return false;
	if (e->is_hard_link)
		return stays_inside(e->link);
	return !S_ISLNK(e->mode) || *e->link;
}

int tree_xattr_next(struct fields *fields, char name[256], struct field *value)
{
	struct field field, part;
	struct fields group;

	do {
		if (fields_next(fields, &field) <= 0)
			return 0;
	} while (field.tag != TAG_XATTR);
	group = field_group(&field);
	if (!fields_valid(group) || !fields_find(group, TAG_NAME, &part) || !part.length ||
	    part.length > 255 || !field_is_string(&part) || !fields_find(group, TAG_DATA, value))
		return -1;
	memcpy(name, part.data, part.length);
	name[part.length] = 0;
	return 1;
}

void tree_output_init(struct tree_output *out, int fd)
{
	out->fd = fd;
	buffer_init(&out->pending, WRITE_BYTES + INPUT_BYTES);
}

static void flush(struct tree_output *out)
{
	const uint8_t *at = out->pending.data;
	size_t left = out->pending.length;
	ssize_t count;

	while (left) {
		count = write(out->fd, at, left);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			_exit(1);
		at += count;
		left -= (size_t)count;
	}
	out->pending.length = 0;
}

static uint8_t *begin(struct tree_output *out, unsigned kind, size_t length)
{
	uint8_t *to = buffer_extend(&out->pending, TREE_HEADER_SIZE_BYTES + length);

	if (!to)
		_exit(1);
	put_u32(to, (uint32_t)length);
	put_u32(to + 4, kind);
	return to + TREE_HEADER_SIZE_BYTES;
}

static void flush_if_much(struct tree_output *out)
{
	if (out->pending.length >= WRITE_BYTES)
		flush(out);
}

void tree_put(struct tree_output *out, unsigned kind, const struct buffer *payload)
{
	uint8_t *to = begin(out, kind, payload->length);

	if (payload->length)
		memcpy(to, payload->data, payload->length);
	flush_if_much(out);
}

void tree_put_data(struct tree_output *out, uint64_t offset, const uint8_t *bytes, size_t count)
{
	uint8_t *to = begin(out, TREE_RECORD_DATA, sizeof(offset) + count);

	put_u64(to, offset);
	memcpy(to + sizeof(offset), bytes, count);
	flush_if_much(out);
}

void tree_put_end(struct tree_output *out, int error, const char *message)
{
	struct buffer payload;

	buffer_init(&payload, MAX_TREE_RECORD_BYTES);
	put_number(&payload, TAG_ERRNO, (uint64_t)error);
	if (error)
		put_string(&payload, TAG_MESSAGE, message);
	if (payload.failed)
		_exit(1);
	tree_put(out, TREE_RECORD_END, &payload);
	flush(out);
	buffer_free(&payload);
}

bool tree_input_init(struct tree_input *in, int fd)
{
	*in = (struct tree_input){ .fd = fd, .data = malloc(INPUT_BYTES) };
	return in->data != NULL;
}

int tree_input_next(struct tree_input *in, struct tree_record *r)
{
	ssize_t taken, count;

	while (!(taken = tree_record_parse(in->data + in->start, in->used, r))) {
		if (in->start + in->used == INPUT_BYTES || !in->used) {
			memmove(in->data, in->data + in->start, in->used);
			in->start = 0;
		}
		count = read(in->fd, in->data + in->start + in->used,
			     INPUT_BYTES - in->start - in->used);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count || in->used ? -1 : 0;
		in->used += (size_t)count;
	}
	if (taken < 0)
		return -1;
	in->start += (size_t)taken;
	in->used -= (size_t)taken;
	return 1;
}
