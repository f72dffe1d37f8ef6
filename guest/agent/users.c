#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FIELDS 8
#define MAX_LINE_BYTES 65536

/* The files belong to the image: they may be anything, a FIFO for instance. */
static FILE *open_plain(const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	FILE *file;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
		close(fd);
		return NULL;
	}
	file = fdopen(fd, "r");
	if (!file)
		close(fd);
	return file;
}

/* The next line split at its colons; false at the end. Lines that are too long are passed over. */
static bool next_entry(FILE *file, char *line, char *fields[MAX_FIELDS], int *count)
{
	size_t length;

	for (;;) {
		if (!fgets(line, MAX_LINE_BYTES, file))
			return false;
		length = strlen(line);
		if (length && line[length - 1] == '\n') {
			line[length - 1] = 0;
		} else if (length == MAX_LINE_BYTES - 1) {
			while (fgets(line, MAX_LINE_BYTES, file) && !strchr(line, '\n'))
				;
			continue;
		}
		break;
	}
	*count = 0;
	for (char *at = line; at && *count < MAX_FIELDS; (*count)++) {
		fields[*count] = at;
		at = strchr(at, ':');
		if (at)
			*at++ = 0;
	}
	return true;
}

/* Numbers as Docker takes them: 0 to 2^31 - 1. */
static bool parse_id(const char *text, unsigned *id)
{
	unsigned long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || value > INT_MAX)
		return false;
	*id = (unsigned)value;
	return true;
}

/* Looks for `wanted`, a name or a number; `name` gets what the entry is called. */
static bool find_user(const char *path, const char *wanted, struct identity *who, char *name,
		      size_t name_size)
{
	char line[MAX_LINE_BYTES], *fields[MAX_FIELDS];
	unsigned uid, gid, number;
	bool is_number = parse_id(wanted, &number), found = false;
	FILE *file = open_plain(path);
	int count;

	while (file && !found && next_entry(file, line, fields, &count)) {
		if (count < 4 || !parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
			continue;
		if (strcmp(fields[0], wanted) && !(is_number && uid == number))
			continue;
		found = true;
		who->uid = uid;
		who->gid = gid;
		snprintf(name, name_size, "%s", fields[0]);
		if (count > 5 && *fields[5])
			snprintf(who->home, sizeof(who->home), "%s", fields[5]);
	}
	if (file)
		fclose(file);
	return found;
}

static bool find_group(const char *path, const char *wanted, gid_t *gid)
{
	char line[MAX_LINE_BYTES], *fields[MAX_FIELDS];
	bool is_number = parse_id(wanted, gid), found = false;
	FILE *file = open_plain(path);
	unsigned entry;
	int count;

	while (file && !found && next_entry(file, line, fields, &count))
		if (count >= 3 && parse_id(fields[2], &entry) &&
		    (!strcmp(fields[0], wanted) || (is_number && entry == *gid))) {
			found = true;
			*gid = entry;
		}
	if (file)
		fclose(file);
	return found || is_number;
}

static void add_group(struct identity *who, gid_t gid)
{
	for (size_t i = 0; i < who->group_count; i++)
		if (who->groups[i] == gid)
			return;
	if (who->group_count < MAX_GROUPS)
		who->groups[who->group_count++] = gid;
}

/* Every group that lists `name` among its members. */
static void add_memberships(const char *path, const char *name, struct identity *who)
{
	char line[MAX_LINE_BYTES], *fields[MAX_FIELDS], *member, *rest;
	FILE *file = open_plain(path);
	unsigned gid;
	int count;

	while (file && next_entry(file, line, fields, &count)) {
		if (count < 4 || !parse_id(fields[2], &gid))
			continue;
		for (member = strtok_r(fields[3], ",", &rest); member;
		     member = strtok_r(NULL, ",", &rest))
			if (!strcmp(member, name))
				add_group(who, gid);
	}
	if (file)
		fclose(file);
}

int identity_resolve(const char *user, char *const *extra, const char *passwd_path,
		     const char *group_path, struct identity *who, char *error, size_t error_size)
{
	char wanted[256], name[256] = "";
	const char *group = strchr(user, ':');
	size_t length = group ? (size_t)(group - user) : strlen(user);
	unsigned uid;
	gid_t gid;

	memset(who, 0, sizeof(*who));
	strcpy(who->home, "/");
	if (length >= sizeof(wanted)) {
		snprintf(error, error_size, "the user's name is too long");
		return EINVAL;
	}
	memcpy(wanted, user, length);
	wanted[length] = 0;
	if (!find_user(passwd_path, length ? wanted : "0", who, name, sizeof(name)) && length) {
		if (!parse_id(wanted, &uid)) {
			snprintf(error, error_size,
				 "unable to find user %s: no matching entries in passwd file",
				 wanted);
			return ENOENT;
		}
		who->uid = uid;
	}
	if (group && group[1]) {
		if (!find_group(group_path, group + 1, &who->gid)) {
			snprintf(error, error_size,
				 "unable to find group %s: no matching entries in group file",
				 group + 1);
			return ENOENT;
		}
	}
	/* The primary group is a supplementary one too, as in Docker: else a set-group-id program
	 * could leave it and so escape a denial meant for the group. */
	add_group(who, who->gid);
	if (*name && !(group && group[1]))
		add_memberships(group_path, name, who);
	for (; *extra; extra++) {
		if (!find_group(group_path, *extra, &gid)) {
			snprintf(error, error_size,
				 "unable to find group %s: no matching entries in group file",
				 *extra);
			return ENOENT;
		}
		add_group(who, gid);
	}
	return 0;
}
