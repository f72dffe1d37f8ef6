#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"

struct running {
	struct job job;
	struct watch end;
};

/* A child that dies before it has told anything closes the pipe all the same. */
static void ended(struct watch *w, uint32_t events)
{
	struct running *r = (struct running *)((char *)w - offsetof(struct running, end));
	struct job_result result = { 0 };
	struct job job = r->job;
	int fd = w->fd;

	(void)events;
	if (read(fd, &result, sizeof(result)) != (ssize_t)sizeof(result)) {
		result.error = EIO;
		snprintf(result.text, sizeof(result.text), "it was killed (out of memory?)");
	}
	loop_remove(w);
	close(fd);
	free(r);
	job.done(job.request, &result);
}

_Noreturn static void run(const struct job *job, int fd)
{
	struct job_result result = { 0 };

	job->work(job, &result);
	_exit(write(fd, &result, sizeof(result)) != (ssize_t)sizeof(result));
}

int job_start(const struct job *job)
{
	struct running *r = calloc(1, sizeof(*r));
	int ends[2], error;
	pid_t pid;

	if (!r || pipe2(ends, O_CLOEXEC)) {
		error = r ? errno : ENOMEM;
		free(r);
		return error;
	}
	r->job = *job;
	r->end.fd = -1;
	error = loop_add(&r->end, ends[0], EPOLLIN, ended) ? 0 : errno;
	pid = error ? -1 : fork();
	if (!pid)
		run(job, ends[1]);
	if (!error && pid < 0)
		error = errno;
	close(ends[1]);
	if (error) {
		loop_remove(&r->end);
		close(ends[0]);
		free(r);
	}
	return error;
}
