/* The smallest guest that the hypervisor contract tests can talk to.
 *
 * PID 1 of a throw-away initramfs: loads the modules named in /modules.order, opens the port
 * slipway.0 and obeys one command per line, answering with one line. It knows nothing of the
 * channel protocol; the real agent is in guest/agent.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LINE_LIMIT 4096
#define PORT_NAME "slipway.0"

static int port = -1;

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L};
    nanosleep(&t, NULL);
}

/* Panics the guest kernel: PID 1 must not exit. */
static void die(const char *what)
{
    fprintf(stderr, "guest_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    if (got < 0)
        return -1;
    text[got] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

static void load_modules(void)
{
    FILE *order = fopen("/modules.order", "re");
    char path[512];
    if (!order)
        die("/modules.order");
    while (fgets(path, sizeof path, order)) {
        path[strcspn(path, "\n")] = '\0';
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            die(path);
        close(fd);
    }
    fclose(order);
}

static int find_port(char *path, size_t size)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int found = 0;
    while (dir && !found && (entry = readdir(dir))) {
        char file[512], name[64];
        snprintf(file, sizeof file, "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (read_text(file, name, sizeof name) == 0 && strcmp(name, PORT_NAME) == 0) {
            snprintf(path, size, "/dev/%s", entry->d_name);
            found = 1;
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

static void open_port(void)
{
    char path[512];
    while (port < 0) {
        if (find_port(path, sizeof path))
            port = open(path, O_RDWR | O_CLOEXEC);
        if (port < 0)
            pause_ms(10);
    }
}

/* Blocks until all is taken; bytes to a host that went away are dropped by QEMU. */
static void say(const char *text, size_t length)
{
    while (length > 0) {
        ssize_t put = write(port, text, length);
        if (put > 0) {
            text += put;
            length -= (size_t)put;
        } else {
            pause_ms(5);
        }
    }
}

/* SCSI serial of a disk: the ASCII part of its unit serial number page (SPC-4, 7.8.15). */
static int disk_serial(const char *name, char *serial, size_t size)
{
    char path[512];
    unsigned char page[256];
    snprintf(path, sizeof path, "/sys/block/%s/device/vpd_pg80", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, page, sizeof page);
    close(fd);
    if (got < 4)
        return -1;
    size_t length = page[3];
    if (length > (size_t)got - 4)
        length = (size_t)got - 4;
    if (length > size - 1)
        length = size - 1;
    memcpy(serial, page + 4, length);
    serial[length] = '\0';
    return 0;
}

/* Serial of a virtio disk; -1 if it reads as zeros, as one without an image does. */
static int virtio_serial(const char *name, char *serial, size_t size)
{
    static const char zeros[512];
    char path[512], block[sizeof zeros];
    snprintf(path, sizeof path, "/dev/%.32s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, block, sizeof block);
    close(fd);
    if (got != (ssize_t)sizeof block || memcmp(block, zeros, sizeof block) == 0)
        return -1;
    snprintf(path, sizeof path, "/sys/block/%.32s/serial", name);
    return read_text(path, serial, size);
}

/* Calls `visit` with each disk; stops when it answers non-zero. */
static int each_disk(int (*visit)(const char *name, const char *serial, void *arg), void *arg)
{
    DIR *dir = opendir("/sys/block");
    struct dirent *entry;
    int answer = 0;
    while (dir && !answer && (entry = readdir(dir))) {
        char serial[64];
        if ((strncmp(entry->d_name, "sd", 2) == 0
             && disk_serial(entry->d_name, serial, sizeof serial) == 0)
            || (strncmp(entry->d_name, "vd", 2) == 0
                && virtio_serial(entry->d_name, serial, sizeof serial) == 0))
            answer = visit(entry->d_name, serial, arg);
    }
    if (dir)
        closedir(dir);
    return answer;
}

static int describe_disk(const char *name, const char *serial, void *arg)
{
    char path[512], sectors[32] = "0", read_only[8] = "0";
    char *answer = arg;
    size_t used = strlen(answer);
    snprintf(path, sizeof path, "/sys/block/%s/size", name);
    read_text(path, sectors, sizeof sectors);
    snprintf(path, sizeof path, "/sys/block/%s/ro", name);
    read_text(path, read_only, sizeof read_only);
    snprintf(answer + used, LINE_LIMIT - used, " %s:%lld:%s", serial, atoll(sectors) * 512,
             strcmp(read_only, "1") == 0 ? "ro" : "rw");
    return 0;
}

struct block_job {
    const char *serial;
    int flags;
    char block[512];
    int error;
};

static int do_block(const char *name, const char *serial, void *arg)
{
    struct block_job *job = arg;
    char path[64];
    if (strcmp(serial, job->serial) != 0)
        return 0;
    snprintf(path, sizeof path, "/dev/%.32s", name);
    int fd = open(path, job->flags | O_CLOEXEC);
    job->error = 0;
    if (fd < 0) {
        job->error = errno;
        return 1;
    }
    ssize_t done = job->flags == O_RDONLY ? pread(fd, job->block, sizeof job->block, 0)
                                          : pwrite(fd, job->block, sizeof job->block, 0);
    if (done != (ssize_t)sizeof job->block || (job->flags != O_RDONLY && fsync(fd) < 0))
        job->error = errno ? errno : EIO;
    close(fd);
    return 1;
}

static void block_command(const char *serial, const char *text, char *answer)
{
    struct block_job job = {.serial = serial, .flags = text ? O_WRONLY : O_RDONLY, .error = ENODEV};
    if (text)
        snprintf(job.block, sizeof job.block, "%.200s", text);
    errno = 0;
    each_disk(do_block, &job);
    job.block[sizeof job.block - 1] = '\0';
    if (job.error)
        snprintf(answer, LINE_LIMIT, "error %d", job.error);
    else
        snprintf(answer, LINE_LIMIT, "block %.200s", text ? "written" : job.block);
}

static void flood(int fd, long long count)
{
    static char chunk[4096];
    memset(chunk, 'x', sizeof chunk);
    chunk[sizeof chunk - 1] = '\n';
    while (count > 0) {
        size_t part = count < (long long)sizeof chunk ? (size_t)count : sizeof chunk;
        if (fd == port)
            say(chunk, part);
        else if (write(fd, chunk, part) < 0)
            die("console");
        count -= (long long)part;
    }
}

static void obey(char *line)
{
    char answer[LINE_LIMIT] = "";
    char *rest = strchr(line, ' ');
    if (rest)
        *rest++ = '\0';
    if (strcmp(line, "panic") == 0)
        exit(1);
    if (strcmp(line, "poweroff") == 0)
        reboot(RB_POWER_OFF);
    if (strcmp(line, "reset") == 0)
        reboot(RB_AUTOBOOT);
    while (strcmp(line, "spin") == 0)
        ;
    if (strcmp(line, "echo") == 0) {
        snprintf(answer, sizeof answer, "%s", rest ? rest : "");
    } else if (strcmp(line, "disks") == 0) {
        snprintf(answer, sizeof answer, "disks");
        each_disk(describe_disk, answer);
    } else if (strcmp(line, "read") == 0 && rest) {
        block_command(rest, NULL, answer);
    } else if (strcmp(line, "write") == 0 && rest && strchr(rest, ' ')) {
        char *text = strchr(rest, ' ');
        *text++ = '\0';
        block_command(rest, text, answer);
    } else if (strcmp(line, "flood") == 0 && rest) {
        flood(port, atoll(rest));
        return;
    } else if (strcmp(line, "console") == 0 && rest) {
        flood(STDOUT_FILENO, atoll(rest));
        snprintf(answer, sizeof answer, "printed");
    } else {
        snprintf(answer, sizeof answer, "unknown %.100s", line);
    }
    strcat(answer, "\n");
    say(answer, strlen(answer));
}

static void make_root(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, "") < 0 || mount("sysfs", "/sys", "sysfs", 0, "") < 0)
        die("mount");
    if (mount("dev", "/dev", "devtmpfs", 0, "") < 0 && errno != EBUSY)
        die("mount /dev");
}

int main(void)
{
    static char line[LINE_LIMIT - 1];
    size_t used = 0;
    make_root();
    load_modules();
    open_port();
    puts("guest_echo: ready");
    fflush(stdout);
    for (;;) {
        char byte;
        ssize_t got = read(port, &byte, 1);
        if (got <= 0) {
            pause_ms(5); /* no host: poll would answer POLLHUP at once */
        } else if (byte == '\n') {
            line[used] = '\0';
            used = 0;
            obey(line);
        } else if (byte != '\0' && used < sizeof line - 1) {
            line[used++] = byte;
        }
    }
}
