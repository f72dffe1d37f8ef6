#include "upkeep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "boot.h"
#include "cgroup.h"
#include "console.h"
#include "device_rules.h"
#include "fields.h"
#include "hello.h"
#include "job.h"
#include "loop.h"
#include "memory_blocks.h"
#include "protocol.h"
#include "requests.h"

/* Sysfs tells nobody when a block comes online. Each look waits longer, since each costs time that
 * the kernel could put memory online in. */
#define MEMORY_FIRST_POLL_NS 2000000
#define MEMORY_LAST_POLL_NS 32000000
/* Longer than any host waits. */
#define MEMORY_TIMEOUT_NS 30000000000ull

static struct {
	bool is_waiting;
	uint64_t request;
	uint64_t wanted_bytes;
	uint64_t deadline_ns;
	long poll_ns; /* until the next look */
	struct watch timer;
} memory = { .timer = WATCH_NONE };

static int write_setting(const char *path, const char *text)
{
	return cgroup_write(AT_FDCWD, path, text);
}

/* A guest that does nothing should not wake up, since each time costs the host. */
static const struct {
	const char *path, *value;
} settings[] = {
	/* Per-CPU counters are folded once a second otherwise, by a timer on every CPU. */
	{ "/proc/sys/vm/stat_interval", "120" },
	/* Twice a second the kernel asks itself otherwise whether memory wants compaction. */
	{ "/proc/sys/vm/compaction_proactiveness", "0" },
	/* Nothing here is a neighbour that must be kept known without traffic. */
	{ "/proc/sys/net/ipv4/neigh/default/interval_probe_time_ms", "3600000" },
	{ "/proc/sys/net/ipv6/neigh/default/interval_probe_time_ms", "3600000" },
	/* Some distributions leave plugged memory offline. Not movable: all of it serves the kernel. */
	{ MEMORY_BLOCKS "/auto_online_blocks", "online_kernel" },
};

void upkeep_settings(void)
{
	int error;

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		error = write_setting(settings[i].path, settings[i].value);
		if (error) /* a kernel of another version may lack some; no guest needs them */
			say("can't set %s: %s", settings[i].path, strerror(error));
	}
}

static void quiesce_work(const struct job *job, struct job_result *result)
{
	static const char *const files[] = { "/proc/sys/vm/drop_caches",
					     "/proc/sys/vm/compact_memory" };
	static const char *const values[] = { "3", "1" };

	(void)job;
	if (!boot_await_modules()) {
		result->error = EIO;
		snprintf(result->text, sizeof(result->text),
			 "the guest's kernel modules didn't load: see the boot console");
		return;
	}
	sync();
	for (int i = 0; i < 2 && !result->error; i++) {
		result->error = write_setting(files[i], values[i]);
		/* A kernel without compaction has nothing to compact. */
		if (i && result->error == ENOENT)
			result->error = 0;
		snprintf(result->text, sizeof(result->text), "can't write to %s: %s", files[i],
			 strerror(result->error));
	}
}

static void quiesce_done(uint64_t request, const struct job_result *result)
{
	if (!result->error) {
		hello_forget_stages();
		guest_clock_forget();
	}
	request_answer(request, result->error, result->text, NULL);
}

int platform_quiesce(uint64_t request, char *error)
{
	struct job job = { .request = request, .work = quiesce_work, .done = quiesce_done };
	int number = device_rules_load(); /* here, since the job is another process */

	if (!number)
		number = job_start(&job);
	snprintf(error, ERROR_SIZE, "%s", strerror(number));
	return number;
}

static void answer_memory(int error, const char *text)
{
	if (!memory.is_waiting)
		return;
	memory.is_waiting = false;
	request_answer(memory.request, error, text, NULL);
}

static void stop_timer(void)
{
	int fd = memory.timer.fd;

	loop_remove(&memory.timer);
	if (fd >= 0)
		close(fd);
}

static int set_timer(int fd)
{
	struct itimerspec once = { .it_value.tv_nsec = memory.poll_ns };

	if (memory.poll_ns < MEMORY_LAST_POLL_NS)
		memory.poll_ns *= 2;
	return timerfd_settime(fd, 0, &once, NULL);
}

static void look_at_memory(void)
{
	uint64_t online_bytes = memory_online_bytes(MEMORY_BLOCKS);
	char text[ERROR_SIZE];

	if (online_bytes < memory.wanted_bytes && clock_ns(CLOCK_MONOTONIC) < memory.deadline_ns &&
	    !set_timer(memory.timer.fd))
		return;
	stop_timer();
	snprintf(text, sizeof(text), "%llu of %llu bytes of memory are online",
		 (unsigned long long)online_bytes, (unsigned long long)memory.wanted_bytes);
	answer_memory(online_bytes < memory.wanted_bytes ? ETIMEDOUT : 0, text);
}

static void timer_ready(struct watch *w, uint32_t events)
{
	uint64_t expirations;

	(void)events;
	if (read(w->fd, &expirations, sizeof(expirations)) > 0)
		look_at_memory();
}

int platform_await_memory(uint64_t request, uint64_t bytes, char *error)
{
	int fd;

	answer_memory(EINTR, "the host waits for another amount of memory meanwhile");
	stop_timer();
	memory.poll_ns = MEMORY_FIRST_POLL_NS;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0 || !loop_add(&memory.timer, fd, EPOLLIN, timer_ready)) {
		int number = errno;

		snprintf(error, ERROR_SIZE, "can't set up a timer: %s", strerror(number));
		if (fd >= 0)
			close(fd);
		return number;
	}
	memory.is_waiting = true;
	memory.request = request;
	memory.wanted_bytes = bytes;
	memory.deadline_ns = clock_ns(CLOCK_MONOTONIC) + MEMORY_TIMEOUT_NS;
	look_at_memory();
	return 0;
}

static void reclaim_work(const struct job *job, struct job_result *result)
{
	result->error = cgroup_reclaim(job->argument, job->bytes, &result->bytes);
	snprintf(result->text, sizeof(result->text), "can't reclaim memory: %s",
		 strerror(result->error));
}

static void reclaim_done(uint64_t request, const struct job_result *result)
{
	struct buffer fields;

	buffer_init(&fields, 64);
	put_number(&fields, TAG_MEMORY_BYTES, result->bytes);
	request_answer(request, result->error, result->text, result->error ? NULL : &fields);
	buffer_free(&fields);
}

int upkeep_reclaim(int cgroup, uint64_t request, uint64_t bytes, char *error)
{
	struct job job = { .request = request, .work = reclaim_work, .done = reclaim_done,
			   .argument = cgroup, .bytes = bytes };
	int number = job_start(&job);

	snprintf(error, ERROR_SIZE, "%s", strerror(number));
	return number;
}
