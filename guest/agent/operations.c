#include "operations.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "console.h"
#include "fields.h"
#include "launch.h"
#include "output.h"
#include "platform.h"
#include "process.h"
#include "protocol.h"
#include "requests.h"
#include "spec.h"
#include "tree.h"

#define RESULT_LIMIT_BYTES 16384
#define PROCESSES_LIMIT_BYTES 49152 /* below what an answer may have */
#define DEFERRED (-1) /* somebody else answers */

struct call {
	uint64_t id;
	struct fields fields;
	struct container *container;
	struct process *process;
	struct buffer result;
	char error[ERROR_SIZE];
};

static bool power_off;

int operation_is_power_off(void)
{
	return power_off;
}

__attribute__((format(printf, 3, 4)))
static int fail(struct call *call, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(call->error, sizeof(call->error), format, arguments);
	va_end(arguments);
	return error;
}

static int need_number(struct call *call, uint16_t tag, uint64_t *value)
{
	struct field field;

	if (fields_find(call->fields, tag, &field) && field_number(&field, value))
		return 0;
	return fail(call, EINVAL, "field %u is missing or no number", tag);
}

static int need_container(struct call *call)
{
	char id[ID_SIZE];

	if (!id_parse(call->fields, TAG_CONTAINER, id))
		return fail(call, EINVAL, "CONTAINER is missing or malformed");
	call->container = container_find(id);
	return call->container ? 0 : fail(call, ENOENT, "no such container: %s", id);
}

static int need_process(struct call *call)
{
	char id[ID_SIZE];
	int error = need_container(call);

	if (error)
		return error;
	strcpy(id, "init");
	if (fields_count(call->fields, TAG_PROCESS_ID) &&
	    !id_parse(call->fields, TAG_PROCESS_ID, id))
		return fail(call, EINVAL, "PROCESS_ID is malformed");
	call->process = process_find(call->container, id);
	return call->process ? 0 : fail(call, ESRCH, "no such process: %s", id);
}

static int set_clock(struct call *call)
{
	uint64_t wanted_ns, before_ns = clock_ns(CLOCK_REALTIME);
	int error = need_number(call, TAG_TIME_NS, &wanted_ns);

	if (error)
		return error;
	put_number(&call->result, TAG_TIME_NS, before_ns);
	return platform_set_clock(wanted_ns, call->error);
}

static int seed_entropy(struct call *call)
{
	struct field field;

	if (!fields_find(call->fields, TAG_DATA, &field) || !field.length || field.length > 4096)
		return fail(call, EINVAL, "DATA must be 1 to 4096 bytes");
	return platform_seed(field.data, field.length, call->error);
}

static int create(struct call *call)
{
	struct create_spec spec;
	struct arena arena;
	char id[ID_SIZE];

	if (!id_parse(call->fields, TAG_CONTAINER, id))
		return fail(call, EINVAL, "CONTAINER is missing or malformed");
	if (container_find(id))
		return fail(call, EEXIST, "the container %s exists", id);
	if (!arena_init(&arena, call->fields.left))
		return fail(call, ENOMEM, "out of memory");
	if (!create_spec_parse(call->fields, &arena, &spec)) {
		arena_free(&arena);
		return fail(call, EINVAL, "%s", arena.error);
	}
	say("container %.12s: create, %zu layers", id, spec.layers.count);
	launch_create(call->id, id, &spec);
	arena_free(&arena);
	return DEFERRED;
}

static int start(struct call *call)
{
	int error = need_container(call);

	if (error)
		return error;
	say("container %.12s: start", call->container->id);
	launch_start(call->id, call->container);
	return DEFERRED;
}

static int exec_allowed(struct call *call, const char *id)
{
	struct container *c = call->container;

	if (!c->init || c->init->state != PROCESS_STATE_RUNNING || c->is_deleting)
		return fail(call, ESRCH, "container %s is not running", c->id);
	if (c->is_frozen)
		return fail(call, EBUSY, "container %s is paused, unpause the container before exec",
			    c->id);
	if (process_find(c, id))
		return fail(call, EEXIST, "the process %s exists", id);
	return 0;
}

static int execute(struct call *call)
{
	struct process_spec spec;
	struct arena arena;
	struct field field;
	char id[ID_SIZE];
	int error = need_container(call);

	if (!error && !id_parse(call->fields, TAG_PROCESS_ID, id))
		error = fail(call, EINVAL, "PROCESS_ID is missing or malformed");
	if (!error && !fields_find(call->fields, TAG_PROCESS_SPEC, &field))
		error = fail(call, EINVAL, "PROCESS_SPEC is missing");
	if (!error)
		error = exec_allowed(call, id);
	if (error)
		return error;
	if (!arena_init(&arena, field.length))
		return fail(call, ENOMEM, "out of memory");
	if (!process_spec_parse(field_group(&field), &arena, &spec)) {
		arena_free(&arena);
		return fail(call, EINVAL, "%s", arena.error);
	}
	launch_exec(call->id, call->container, id, &spec);
	arena_free(&arena);
	return DEFERRED;
}

static int send_signal(struct call *call)
{
	uint64_t number;
	int error = need_number(call, TAG_SIGNAL, &number);

	if (!error)
		error = need_process(call);
	if (error)
		return error;
	if (number > 64)
		return fail(call, EINVAL, "no such signal: %llu", (unsigned long long)number);
	error = process_signal(call->process, (int)number);
	return error ? fail(call, error, "process %s: %s", call->process->id, strerror(error)) : 0;
}

static int resize(struct call *call)
{
	uint64_t rows, columns;
	int error = need_number(call, TAG_ROWS, &rows);

	if (!error)
		error = need_number(call, TAG_COLUMNS, &columns);
	if (!error)
		error = need_process(call);
	if (error)
		return error;
	if (rows > UINT16_MAX || columns > UINT16_MAX)
		return fail(call, EINVAL, "a terminal has at most 65535 rows and columns");
	error = process_resize(call->process, (uint16_t)rows, (uint16_t)columns);
	return error ? fail(call, error, "process %s: %s", call->process->id, strerror(error)) : 0;
}

static int stats(struct call *call)
{
	int error = need_container(call);

	return error ? error : platform_stats(call->container, &call->result, call->error);
}

static int processes(struct call *call)
{
	int error = need_container(call);

	call->result.limit = PROCESSES_LIMIT_BYTES;
	return error ? error : platform_processes(call->container, &call->result, call->error);
}

static int tree(struct call *call)
{
	int error = need_container(call);

	return error ? error : tree_begin(call->container, call->fields, call->error);
}

static int freeze(struct call *call)
{
	int error = need_container(call);

	if (error)
		return error;
	error = platform_freeze(call->container, call->id, call->error);
	return error ? error : DEFERRED;
}

static int thaw(struct call *call)
{
	int error = need_container(call);

	return error ? error : platform_thaw(call->container, call->error);
}

static int update(struct call *call)
{
	struct limits limits;
	int error = need_container(call);

	if (error)
		return error;
	if (!limits_parse(call->fields, &limits))
		return fail(call, EINVAL, "a limit is no number");
	return platform_update(call->container, &limits, call->error);
}

static int delete(struct call *call)
{
	int error = need_container(call);
	struct container *c = call->container;

	if (error)
		return error;
	if (c->is_deleting || (c->init && c->init->state == PROCESS_STATE_SETUP))
		return fail(call, EBUSY, "container %s is being %s", c->id,
			    c->is_deleting ? "deleted" : "created");
	c->is_deleting = true;
	c->delete_request = call->id;
	if (container_is_empty(c))
		platform_sync(c);
	else
		container_end(c);
	return DEFERRED;
}

void container_synced(struct container *c)
{
	uint64_t request = c->delete_request;

	platform_container_close(c);
	container_free(c);
	request_answer(request, 0, NULL, NULL);
}

static int quiesce(struct call *call)
{
	int error;

	if (containers_exist())
		return fail(call, EBUSY, "a guest with containers can't become a template");
	error = platform_quiesce(call->id, call->error);
	return error ? error : DEFERRED;
}

static int await_memory(struct call *call)
{
	uint64_t bytes;
	int error = need_number(call, TAG_MEMORY_BYTES, &bytes);

	if (!error)
		error = platform_await_memory(call->id, bytes, call->error);
	return error ? error : DEFERRED;
}

static int reclaim(struct call *call)
{
	uint64_t bytes;
	int error = need_number(call, TAG_MEMORY_BYTES, &bytes);

	if (!error)
		error = need_container(call);
	if (!error)
		error = platform_reclaim(call->container, call->id, bytes, call->error);
	return error ? error : DEFERRED;
}

static int switch_off(struct call *call)
{
	(void)call;
	power_off = true;
	return 0;
}

static int (*const operations[])(struct call *) = {
	[OP_SET_CLOCK] = set_clock, [OP_SEED_ENTROPY] = seed_entropy,
	[OP_CREATE] = create,	    [OP_START] = start,
	[OP_EXEC] = execute,	    [OP_SIGNAL] = send_signal,
	[OP_RESIZE] = resize,	    [OP_STATS] = stats,
	[OP_FREEZE] = freeze,	    [OP_THAW] = thaw,
	[OP_UPDATE] = update,	    [OP_DELETE] = delete,
	[OP_POWER_OFF] = switch_off,   [OP_QUIESCE] = quiesce,
	[OP_AWAIT_MEMORY] = await_memory, [OP_RECLAIM] = reclaim,
	[OP_PROCESSES] = processes,    [OP_STAT_PATH] = tree,
	[OP_READ_TREE] = tree,	    [OP_WRITE_TREE] = tree,
	[OP_LIST_CHANGES] = tree,
};

void operation_run(uint64_t id, const uint8_t *message, size_t length)
{
	struct call call = { .id = id, .fields = { message, length } };
	uint64_t op = 0;
	int error;

	buffer_init(&call.result, RESULT_LIMIT_BYTES);
	if (!fields_valid(call.fields))
		error = fail(&call, EINVAL, "malformed request");
	else if ((error = need_number(&call, TAG_OP, &op)))
		;
	else if (op >= sizeof(operations) / sizeof(operations[0]) || !operations[op])
		error = fail(&call, ENOSYS, "no such operation: %llu", (unsigned long long)op);
	else
		error = operations[op](&call);
	if (error != DEFERRED)
		request_answer(id, error, call.error[0] ? call.error : strerror(error),
			       error ? NULL : &call.result);
	buffer_free(&call.result);
}
