/* Clock and random numbers of the guest. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "console.h"
#include "platform.h"
#include "upkeep.h"

#define STEP_FROM_NS 500000000ll

static bool was_set;

void guest_clock_forget(void)
{
	was_set = false;
}

static int failed(char *error, int number, const char *what)
{
	snprintf(error, ERROR_SIZE, "%s: %s", what, strerror(number));
	return number;
}

/* The first time it steps in any case: the clock chip knows only seconds, and slewing half of one
 * takes a quarter of an hour. */
int platform_set_clock(uint64_t time_ns, char *error)
{
	int64_t off_ns = (int64_t)(time_ns - clock_ns(CLOCK_REALTIME));
	struct timespec to = { (time_t)(time_ns / 1000000000), (long)(time_ns % 1000000000) };
	struct timeval by = { (time_t)(off_ns / 1000000000), (suseconds_t)(off_ns % 1000000000 / 1000) };

	if (!was_set || off_ns >= STEP_FROM_NS || off_ns <= -STEP_FROM_NS) {
		if (clock_settime(CLOCK_REALTIME, &to))
			return failed(error, errno, "can't set the clock");
		if (was_set)
			say("clock stepped by %lld ms", (long long)(off_ns / 1000000));
		was_set = true;
	} else if (adjtime(&by, NULL)) {
		return failed(error, errno, "can't slew the clock");
	}
	return 0;
}

int platform_seed(const uint8_t *bytes, size_t count, char *error)
{
	struct rand_pool_info *pool = calloc(1, sizeof(*pool) + count);
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), number = 0;

	if (!pool || fd < 0) {
		number = pool ? errno : ENOMEM;
	} else {
		pool->entropy_count = (int)(count * 8);
		pool->buf_size = (int)count;
		memcpy(pool->buf, bytes, count);
		if (ioctl(fd, RNDADDENTROPY, pool) || ioctl(fd, RNDRESEEDCRNG))
			number = errno;
	}
	if (fd >= 0)
		close(fd);
	free(pool);
	return number ? failed(error, number, "can't seed the random number generator") : 0;
}
