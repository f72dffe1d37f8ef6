/* Work that may block, done in a process of its own, so that it can't silence the channel. */
#ifndef SLIPWAY_JOB_H
#define SLIPWAY_JOB_H

#include <stdint.h>

#include "platform.h"

struct job_result {
	int error; /* 0 or an errno */
	uint64_t bytes;
	char text[ERROR_SIZE]; /* what failed */
};

struct job {
	uint64_t request;
	/* In the child; `argument` and `bytes` are the job's. */
	void (*work)(const struct job *job, struct job_result *result);
	/* In the agent, once the child is through; answers the request. */
	void (*done)(uint64_t request, const struct job_result *result);
	int argument;
	uint64_t bytes;
};

/* Starts it, by copy; 0 or an errno. */
int job_start(const struct job *job);

#endif
