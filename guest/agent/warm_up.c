/* `warm-up` in the layer of the pool's throw-away container: does what programs usually do at their
 * start and end, so that a VM has been through all of it before it gets a container. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "/warm-up"
#define LAYER_FILE "/etc/warm-up" /* from the layer: writing to it makes overlayfs copy it */
#define PAGE_BYTES 4096
#define HEAP_BYTES (256 << 10)
#define CHILDREN 2

static volatile sig_atomic_t signals_seen;

static void need(bool is_done, const char *what)
{
	if (is_done)
		return;
	fprintf(stderr, "warm-up: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void count_signal(int number)
{
	(void)number;
	signals_seen++;
}

static void take_signals(void)
{
	struct sigaction action = { .sa_handler = count_signal };

	need(!sigaction(SIGUSR1, &action, NULL) && !sigaction(SIGCHLD, &action, NULL), "sigaction");
	need(!raise(SIGUSR1) && signals_seen, "raise");
}

static void read_file(const char *path)
{
	char text[PAGE_BYTES];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	need(fd >= 0 && read(fd, text, sizeof(text)) >= 0, path);
	close(fd);
}

static void read_root(void)
{
	DIR *root = opendir("/");
	struct dirent *entry;
	struct stat status;

	need(root != NULL, "opendir");
	while ((entry = readdir(root)))
		need(!fstatat(dirfd(root), entry->d_name, &status, AT_SYMLINK_NOFOLLOW), "stat");
	closedir(root);
}

/* As a loader maps a library: read here and there, and a page of it relocated. */
static void map_program(void)
{
	int fd = open(PROGRAM, O_RDONLY | O_CLOEXEC);
	struct stat status;
	unsigned sum = 0;
	char *at;

	need(fd >= 0 && !fstat(fd, &status), PROGRAM);
	at = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	need(at != MAP_FAILED, "mmap");
	for (off_t i = 0; i < status.st_size; i += PAGE_BYTES)
		sum += (unsigned char)at[i];
	at[0] = (char)sum;
	need(!mprotect(at, PAGE_BYTES, PROT_READ), "mprotect");
	munmap(at, (size_t)status.st_size);
	close(fd);
}

static void *fill_heap(void *unused)
{
	char *heap = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	char *end = sbrk(HEAP_BYTES);

	need(heap != MAP_FAILED && end != (void *)-1, "memory");
	memset(heap, 1, HEAP_BYTES);
	memset(end, 1, HEAP_BYTES);
	munmap(heap, HEAP_BYTES);
	return unused;
}

static void run_thread(void)
{
	pthread_t thread;

	need(!pthread_create(&thread, NULL, fill_heap, NULL) && !pthread_join(thread, NULL),
	     "thread");
}

static void write_files(void)
{
	static const char block[PAGE_BYTES];
	int made = open("/tmp/warm-up", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int copied = open(LAYER_FILE, O_WRONLY | O_APPEND | O_CLOEXEC);

	need(made >= 0 && write(made, block, sizeof(block)) == sizeof(block), "/tmp");
	need(copied >= 0 && write(copied, "warm\n", 5) == 5, LAYER_FILE);
	close(made);
	close(copied);
	need(!rename("/tmp/warm-up", "/tmp/warmed-up") && !unlink("/tmp/warmed-up"), "unlink");
	need(!mkdir("/tmp/warm-up", 0755) && !rmdir("/tmp/warm-up"), "mkdir");
}

static void run_child(void)
{
	char text[64];
	int ends[2], status;
	pid_t pid;

	need(!pipe2(ends, O_CLOEXEC), "pipe");
	pid = fork();
	if (!pid) {
		dup2(ends[1], STDOUT_FILENO);
		execl(PROGRAM, PROGRAM, "child", NULL);
		_exit(127);
	}
	close(ends[1]);
	need(pid > 0 && read(ends[0], text, sizeof(text)) > 0, "child");
	need(waitpid(pid, &status, 0) == pid && !status, "child");
	close(ends[0]);
}

int main(int argc, char **argv)
{
	struct timespec moment = { .tv_nsec = 1000000 };

	if (argc > 1 && !strcmp(argv[1], "child"))
		return puts("child") < 0;
	take_signals();
	read_file("/etc/hosts");
	read_file("/proc/self/status");
	read_file("/proc/meminfo");
	read_root();
	map_program();
	run_thread();
	write_files();
	for (int i = 0; i < CHILDREN; i++)
		run_child();
	nanosleep(&moment, NULL);
	fputs("warm\n", stderr);
	return puts("warm") < 0;
}
