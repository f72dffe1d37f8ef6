#include "devices.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UEVENT_SIZE 1024
#define DEFAULT_MODE 0600

struct search {
	const char *name;
	struct device *found;
};

static bool read_uevent(int directory, const char *number, char text[UEVENT_SIZE])
{
	char path[64];
	ssize_t count;
	int fd;

	snprintf(path, sizeof(path), "%.40s/uevent", number);
	fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	count = read(fd, text, UEVENT_SIZE - 1);
	close(fd);
	text[count > 0 ? count : 0] = 0;
	return count > 0;
}

/* Lines of KEY=value; without DEVNAME there is no node in /dev. */
static bool parse(char *text, struct device *d)
{
	char *rest = NULL;

	d->name[0] = 0;
	d->mode = DEFAULT_MODE;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (!strncmp(line, "MAJOR=", 6))
			d->major = (unsigned)strtoul(line + 6, NULL, 10);
		else if (!strncmp(line, "MINOR=", 6))
			d->minor = (unsigned)strtoul(line + 6, NULL, 10);
		else if (!strncmp(line, "DEVMODE=", 8))
			d->mode = (mode_t)strtoul(line + 8, NULL, 8) & 0777;
		else if (!strncmp(line, "DEVNAME=", 8) && strlen(line + 8) < sizeof(d->name))
			strcpy(d->name, line + 8);
	}
	return d->name[0];
}

static bool each_in(const char *path, mode_t type, bool (*use)(const struct device *d, void *context),
		    void *context)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	bool go_on = true;

	while (go_on && directory && (entry = readdir(directory))) {
		struct device d = { .type = type };
		char text[UEVENT_SIZE];

		if (entry->d_name[0] != '.' && read_uevent(dirfd(directory), entry->d_name, text) &&
		    parse(text, &d))
			go_on = use(&d, context);
	}
	if (directory)
		closedir(directory);
	return go_on;
}

bool devices_each(bool (*use)(const struct device *d, void *context), void *context)
{
	return each_in("/sys/dev/char", S_IFCHR, use, context) &&
	       each_in("/sys/dev/block", S_IFBLK, use, context);
}

static bool is_not_it(const struct device *d, void *context)
{
	struct search *s = context;

	if (strcmp(d->name, s->name))
		return true;
	*s->found = *d;
	return false;
}

bool device_find(const char *path, struct device *d)
{
	struct search s = { path, d };

	if (!strncmp(path, "/dev/", 5))
		s.name += 5;
	return !devices_each(is_not_it, &s);
}
