#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "console.h"
#include "input.h"
#include "output.h"
#include "platform.h"

#define OUTPUT_MEMORY_BYTES (256 << 10)
#define OPEN_DIRECTORIES 8192 /* a path has at most half as many parts as bytes */

enum { FD_OUT = 3, FD_IN, FD_ROOT, FD_LOWER, FD_LINKS, FD_FREE };
#define FD_HIGH 64

_Noreturn void tree_done(struct tree_job *job)
{
	tree_put_end(&job->out, 0, "");
	_exit(0);
}

_Noreturn void tree_fail(struct tree_job *job, int error, const char *format, ...)
{
	char text[TREE_NAME_SIZE + 256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	tree_put_end(&job->out, error ? error : EIO, text);
	_exit(1);
}

int tree_open(const struct tree_job *job, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT };
	long fd;

	/* EAGAIN: somebody renamed a directory on the way, and the kernel can't rule out an escape. */
	for (int attempt = 0; attempt < 64; attempt++) {
		fd = syscall(SYS_openat2, job->root, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int)fd;
}

int tree_open_parent(const struct tree_job *job, const char *path, const char **last)
{
	char parent[TREE_NAME_SIZE];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	memcpy(parent, path, length);
	strcpy(parent + length, "/");
	*last = slash ? slash + 1 : path;
	return tree_open(job, parent, O_PATH | O_DIRECTORY);
}

/* Everything else that the agent has open must not live on here: a pipe's end would keep it open. */
static void keep_descriptors(struct tree_job *job, int out, int in)
{
	int kept[] = { out, in, job->root, job->lower, job->links };

	for (int i = 0; i < 5; i++)
		if (kept[i] >= 0)
			kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, FD_HIGH);
	for (int i = 0; i < 5; i++)
		if (kept[i] >= 0)
			dup3(kept[i], FD_OUT + i, O_CLOEXEC);
	close_range(FD_FREE, ~0u, 0);
	for (int i = 0; i < 5; i++)
		if (kept[i] < 0)
			close(FD_OUT + i);
	job->root = FD_ROOT;
	job->links = FD_LINKS;
	job->lower = kept[3] < 0 ? -1 : FD_LOWER;
}

_Noreturn static void child_run(struct tree_job *job, int out, int in)
{
	struct rlimit many = { OPEN_DIRECTORIES, OPEN_DIRECTORIES };
	char error[ERROR_SIZE] = "";
	int number;

	umask(0);
	setrlimit(RLIMIT_NOFILE, &many);
	tree_output_init(&job->out, out);
	job->lower = job->op == OP_LIST_CHANGES ? lower_open(job) : -1;
	job->links = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	number = platform_tree_root(job->container, (unsigned)job->view, &job->root, error);
	if (number)
		tree_fail(job, number, "%s", error);
	keep_descriptors(job, out, in);
	job->out.fd = FD_OUT;
	if (job->op == OP_WRITE_TREE && !tree_input_init(&job->in, FD_IN))
		tree_fail(job, ENOMEM, "out of memory");
	switch (job->op) {
	case OP_STAT_PATH:
		tree_stat(job);
	case OP_READ_TREE:
		tree_read(job);
	case OP_WRITE_TREE:
		tree_write(job);
	default:
		tree_changes(job);
	}
}

static int wrong(char *error, int number, const char *text)
{
	snprintf(error, ERROR_SIZE, "%s", text);
	return number;
}

static int parse(struct fields f, struct tree_job *job, uint64_t *output, uint64_t *input, char *error)
{
	uint64_t follow = 0, keep = 0;
	struct field path;

	job->view = TREE_VIEW_CONTAINER;
	strcpy(job->path, "/");
	if (!number_parse(f, TAG_OP, &job->op) || !number_parse(f, TAG_VIEW, &job->view) ||
	    !number_parse(f, TAG_FOLLOW, &follow) || !number_parse(f, TAG_KEEP_KINDS, &keep) ||
	    !number_parse(f, TAG_OUTPUT_STREAM, output) || !number_parse(f, TAG_STDIN_STREAM, input))
		return wrong(error, EINVAL, "a field is no number");
	if (job->view < TREE_VIEW_CONTAINER || job->view > TREE_VIEW_UPPER)
		return wrong(error, EINVAL, "no such view");
	if (!*output || *output > UINT32_MAX || *input > UINT32_MAX || *input == *output ||
	    (job->op == OP_WRITE_TREE) != (*input != 0))
		return wrong(error, EINVAL, "the streams are not those of the operation");
	if (fields_find(f, TAG_PATH, &path)) {
		if (path.length >= TREE_NAME_SIZE)
			return wrong(error, ENAMETOOLONG, "the path is too long");
		if (!path.length || path.data[0] != '/' || !field_is_string(&path))
			return wrong(error, EINVAL, "PATH is not absolute");
		memcpy(job->path, path.data, path.length);
		job->path[path.length] = 0;
	}
	job->follow = follow;
	job->keep_kinds = keep;
	return 0;
}

static int make_streams(struct process *p, uint32_t output, uint32_t input)
{
	if (output_exists(output) || input_exists(output) || output_exists(input) ||
	    (input && input_exists(input)))
		return EEXIST;
	p->output = output_make(output, p->container, OUTPUT_MEMORY_BYTES);
	if (!p->output)
		return ENOMEM;
	if (input)
		p->input = input_make(input);
	return input && !p->input ? ENOMEM : 0;
}

static void close_both(const int *ends)
{
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
}

/* In the agent: 0 or an errno. The pipes' ends that it takes over become -1. */
static int start(struct process *p, struct tree_job *job, int *from, int *to)
{
	pid_t pid;

	if (pipe2(from, O_CLOEXEC) || (p->input && pipe2(to, O_CLOEXEC)))
		return errno;
	pid = fork();
	if (!pid)
		child_run(job, from[1], to[0]);
	if (pid < 0)
		return errno;
	p->pid = pid;
	p->pidfd = pidfd_open(pid, 0);
	p->state = PROCESS_STATE_RUNNING;
	p->time_ns = clock_ns(CLOCK_REALTIME);
	if (!output_add_source(p->output, from[0], SOURCE_STDOUT))
		return errno;
	from[0] = -1;
	output_seal(p->output);
	if (p->input && !input_set_target(p->input, to[1]))
		return errno;
	to[1] = -1;
	return 0;
}

static void undo(struct process *p)
{
	if (p->pid > 0)
		process_signal(p, SIGKILL);
	if (p->input)
		input_close(p->input);
	if (p->output)
		output_discard(p->output);
	process_free(p);
}

static int begin(struct container *c, const char *id, struct tree_job *job, uint32_t output,
		 uint32_t input, char *error)
{
	struct process *p = process_make(c, id);
	int from[2] = { -1, -1 }, to[2] = { -1, -1 }, number;

	if (!p)
		return wrong(error, EAGAIN, "too many processes");
	number = make_streams(p, output, input);
	if (number == EEXIST)
		wrong(error, number, "a stream id is in use");
	if (!number)
		number = start(p, job, from, to);
	close_both(from);
	close_both(to);
	if (number)
		undo(p);
	return number;
}

int tree_begin(struct container *c, struct fields f, char *error)
{
	static struct tree_job job; /* too large for a stack; the child has its copy */
	uint64_t output = 0, input = 0;
	struct arena arena;
	char id[ID_SIZE];
	int number;

	memset(&job, 0, sizeof(job));
	job.container = c;
	job.root = job.lower = job.links = -1;
	if (!id_parse(f, TAG_PROCESS_ID, id))
		return wrong(error, EINVAL, "PROCESS_ID is missing or malformed");
	if (process_find(c, id))
		return wrong(error, EEXIST, "the process exists");
	if (!c->init || c->is_deleting || c->init->pid <= 0 ||
	    (c->init->state != PROCESS_STATE_CREATED && c->init->state != PROCESS_STATE_RUNNING))
		return wrong(error, ESRCH, "the container is not there any more");
	number = parse(f, &job, &output, &input, error);
	if (number)
		return number;
	if (!arena_init(&arena, f.left))
		return ENOMEM;
	number = strings_parse(f, &arena, TAG_LAYER, &job.layers) ?
			 begin(c, id, &job, (uint32_t)output, (uint32_t)input, error) :
			 wrong(error, EINVAL, arena.error);
	arena_free(&arena);
	return number;
}
