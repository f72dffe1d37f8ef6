#include "spec.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol.h"

#define MAX_LAYERS 500 /* overlayfs takes no more */

bool arena_init(struct arena *a, size_t message_length)
{
	memset(a, 0, sizeof(*a));
	/* A field takes 8 bytes and its data; its copy a pointer or an item, a NUL and its data. */
	a->size = message_length * 6 + 4096;
	a->memory = malloc(a->size);
	if (!a->memory)
		snprintf(a->error, sizeof(a->error), "out of memory");
	return a->memory != NULL;
}

void arena_free(struct arena *a)
{
	free(a->memory);
	a->memory = NULL;
}

__attribute__((format(printf, 2, 3)))
static bool wrong(struct arena *a, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(a->error, sizeof(a->error), format, arguments);
	va_end(arguments);
	return false;
}

static void *take(struct arena *a, size_t size)
{
	size_t at = (a->used + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);

	if (at > a->size || size > a->size - at) {
		wrong(a, "too many fields");
		return NULL;
	}
	a->used = at + size;
	return a->memory + at;
}

static uint8_t *copy(struct arena *a, const struct field *field)
{
	uint8_t *to;

	if (a->size - a->used <= field->length) {
		wrong(a, "too many fields");
		return NULL;
	}
	to = a->memory + a->used;
	memcpy(to, field->data, field->length);
	to[field->length] = 0;
	a->used += field->length + 1;
	return to;
}

static char *copy_string(struct arena *a, const struct field *field)
{
	if (!field_is_string(field)) {
		wrong(a, "field %u is no string", field->tag);
		return NULL;
	}
	return (char *)copy(a, field);
}

static bool string(struct fields f, struct arena *a, uint16_t tag, const char **to)
{
	struct field field;

	if (!fields_find(f, tag, &field))
		return true;
	*to = copy_string(a, &field);
	return *to != NULL;
}

static bool strings(struct fields f, struct arena *a, uint16_t tag, struct strings *to)
{
	struct field field;

	to->items = take(a, (fields_count(f, tag) + 2) * sizeof(char *));
	if (!to->items)
		return false;
	while (fields_next(&f, &field) > 0) {
		if (field.tag != tag)
			continue;
		to->items[to->count] = copy_string(a, &field);
		if (!to->items[to->count++])
			return false;
	}
	to->items[to->count] = NULL;
	return true;
}

bool strings_parse(struct fields f, struct arena *a, uint16_t tag, struct strings *to)
{
	return strings(f, a, tag, to);
}

bool number_parse(struct fields f, uint16_t tag, uint64_t *value)
{
	struct field field;

	return !fields_find(f, tag, &field) || field_number(&field, value);
}

static bool number(struct fields f, struct arena *a, uint16_t tag, uint64_t *value)
{
	return number_parse(f, tag, value) || wrong(a, "field %u is no number", tag);
}

/* A number below `limit`. */
static bool small(struct fields f, struct arena *a, uint16_t tag, uint64_t limit, uint64_t *value)
{
	*value = 0;
	if (!number(f, a, tag, value))
		return false;
	return *value < limit || wrong(a, "field %u is too large", tag);
}

static bool flag(struct fields f, struct arena *a, uint16_t tag, bool *to)
{
	uint64_t value;

	if (!small(f, a, tag, 2, &value))
		return false;
	*to = value;
	return true;
}

bool id_parse(struct fields f, uint16_t tag, char to[ID_SIZE])
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	struct field field;

	if (!fields_find(f, tag, &field) || !field.length || field.length >= ID_SIZE)
		return false;
	for (uint32_t i = 0; i < field.length; i++)
		if (!field.data[i] ||
		    !(strchr(letters, field.data[i]) || (i && strchr("_.-", field.data[i]))))
			return false;
	memcpy(to, field.data, field.length);
	to[field.length] = 0;
	return true;
}

static bool one_limit(struct fields f, uint16_t tag, struct limit *l)
{
	struct field field;

	l->is_set = fields_find(f, tag, &field);
	return !l->is_set || field_number(&field, &l->value);
}

bool limits_parse(struct fields f, struct limits *l)
{
	return one_limit(f, TAG_MEMORY_MAX_BYTES, &l->memory_max_bytes) &&
	       one_limit(f, TAG_MEMORY_SWAP_MAX_BYTES, &l->memory_swap_max_bytes) &&
	       one_limit(f, TAG_CPU_QUOTA_US, &l->cpu_quota_us) &&
	       one_limit(f, TAG_CPU_PERIOD_US, &l->cpu_period_us) &&
	       one_limit(f, TAG_CPU_WEIGHT, &l->cpu_weight) &&
	       one_limit(f, TAG_PIDS_MAX, &l->pids_max);
}

static bool rlimits(struct fields f, struct arena *a, struct process_spec *s)
{
	struct field field;

	while (fields_next(&f, &field) > 0) {
		struct rlimit_spec *r = &s->rlimits[s->rlimit_count];
		struct fields group = field_group(&field);

		if (field.tag != TAG_RLIMIT)
			continue;
		if (s->rlimit_count == MAX_RLIMITS || !fields_valid(group))
			return wrong(a, "too many or malformed rlimits");
		*r = (struct rlimit_spec){ 0 };
		if (!number(group, a, TAG_RESOURCE, &r->resource) ||
		    !number(group, a, TAG_SOFT, &r->soft) || !number(group, a, TAG_HARD, &r->hard))
			return false;
		s->rlimit_count++;
	}
	return true;
}

bool process_spec_parse(struct fields f, struct arena *a, struct process_spec *s)
{
	uint64_t rows, columns, in, out, score = 0;

	memset(s, 0, sizeof(*s));
	s->cwd = "/";
	s->user = "";
	if (!fields_valid(f))
		return wrong(a, "malformed PROCESS_SPEC");
	if (!strings(f, a, TAG_ARG, &s->args) || !strings(f, a, TAG_ENV, &s->env) ||
	    !strings(f, a, TAG_GROUP, &s->groups) || !string(f, a, TAG_CWD, &s->cwd) ||
	    !string(f, a, TAG_USER, &s->user) || !flag(f, a, TAG_TTY, &s->tty) ||
	    !flag(f, a, TAG_NO_NEW_PRIVILEGES, &s->no_new_privileges) ||
	    !small(f, a, TAG_ROWS, 65536, &rows) || !small(f, a, TAG_COLUMNS, 65536, &columns) ||
	    !small(f, a, TAG_STDIN_STREAM, 1ull << 32, &in) ||
	    !small(f, a, TAG_OUTPUT_STREAM, 1ull << 32, &out) ||
	    !number(f, a, TAG_CAPABILITIES, &s->capabilities) || !rlimits(f, a, s) ||
	    !number(f, a, TAG_OOM_SCORE_ADJ, &score))
		return false;
	if (!s->args.count)
		return wrong(a, "no command: ARG is missing");
	if (s->cwd[0] != '/')
		return wrong(a, "the working directory '%.80s' is not absolute", s->cwd);
	if ((int64_t)score < -1000 || (int64_t)score > 1000)
		return wrong(a, "OOM_SCORE_ADJ must lie between -1000 and 1000");
	s->oom_score_adj = (int)(int64_t)score;
	s->rows = (uint16_t)rows;
	s->columns = (uint16_t)columns;
	s->stdin_stream = (uint32_t)in;
	s->output_stream = (uint32_t)out;
	return out || wrong(a, "OUTPUT_STREAM is missing");
}

static bool items(struct fields f, struct arena *a, uint16_t tag, const uint16_t names[2],
		  struct items *to)
{
	struct field field, name, data;
	uint64_t mode;

	to->items = take(a, (fields_count(f, tag) + 1) * sizeof(*to->items));
	if (!to->items)
		return false;
	while (fields_next(&f, &field) > 0) {
		struct item *item = &to->items[to->count];
		struct fields group = field_group(&field);

		if (field.tag != tag)
			continue;
		if (!fields_valid(group) || !fields_find(group, names[0], &name))
			return wrong(a, "malformed group %u", tag);
		if (!fields_find(group, names[1], &data))
			data = (struct field){ 0, 0, (const uint8_t *)"" };
		item->name = copy_string(a, &name);
		item->data = item->name ? copy(a, &data) : NULL;
		item->length = data.length;
		if (!item->data || !small(group, a, TAG_MODE, 010000, &mode))
			return false;
		item->mode = (uint32_t)mode;
		to->count++;
	}
	return true;
}

static bool seccomp(struct fields f, struct arena *a, struct create_spec *s)
{
	struct field field;
	void *to;

	if (!fields_find(f, TAG_SECCOMP, &field))
		return true;
	if (!field.length || field.length % sizeof(*s->seccomp) ||
	    field.length / sizeof(*s->seccomp) > BPF_MAXINSNS)
		return wrong(a, "SECCOMP is no program of 1 to %d instructions", BPF_MAXINSNS);
	to = take(a, field.length);
	if (!to)
		return false;
	memcpy(to, field.data, field.length);
	s->seccomp = to;
	s->seccomp_count = field.length / sizeof(*s->seccomp);
	return true;
}

static bool groups(struct fields f, struct arena *a, struct create_spec *s)
{
	static const uint16_t tmpfs[] = { TAG_PATH, TAG_OPTIONS };
	static const uint16_t file[] = { TAG_PATH, TAG_DATA };
	static const uint16_t sysctl[] = { TAG_NAME, TAG_VALUE };
	static const uint16_t device[] = { TAG_NAME, TAG_PATH };

	return items(f, a, TAG_TMPFS, tmpfs, &s->tmpfs) && items(f, a, TAG_FILE, file, &s->files) &&
	       items(f, a, TAG_SYSCTL, sysctl, &s->sysctls) &&
	       items(f, a, TAG_DEVICE, device, &s->devices);
}

bool create_spec_parse(struct fields f, struct arena *a, struct create_spec *s)
{
	struct field field;

	memset(s, 0, sizeof(*s));
	s->hostname = "";
	s->domainname = "";
	s->scratch = "";
	s->shm_bytes = 64 << 20;
	if (!string(f, a, TAG_CONTAINER, &s->container) ||
	    !string(f, a, TAG_HOSTNAME, &s->hostname) ||
	    !string(f, a, TAG_DOMAINNAME, &s->domainname) ||
	    !strings(f, a, TAG_LAYER, &s->layers) || !string(f, a, TAG_SCRATCH, &s->scratch) ||
	    !number(f, a, TAG_SPILL_BYTES, &s->spill_bytes) ||
	    !flag(f, a, TAG_READ_ONLY_ROOT, &s->read_only_root) ||
	    !flag(f, a, TAG_INIT, &s->init) ||
	    !flag(f, a, TAG_PRIVILEGED, &s->privileged) || !seccomp(f, a, s) ||
	    !strings(f, a, TAG_MASKED_PATH, &s->masked_paths) ||
	    !strings(f, a, TAG_READ_ONLY_PATH, &s->read_only_paths) || !groups(f, a, s) ||
	    !number(f, a, TAG_SHM_BYTES, &s->shm_bytes))
		return false;
	if (!limits_parse(f, &s->limits))
		return wrong(a, "a limit is no number");
	if (s->layers.count > MAX_LAYERS)
		return wrong(a, "more than %d layers", MAX_LAYERS);
	if (!fields_find(f, TAG_PROCESS_SPEC, &field))
		return wrong(a, "PROCESS_SPEC is missing");
	return process_spec_parse(field_group(&field), a, &s->process);
}

bool layer_is_hidden(const struct strings *layers, size_t i)
{
	for (size_t above = i + 1; above < layers->count; above++)
		if (!strcmp(layers->items[i], layers->items[above]))
			return true;
	return false;
}
