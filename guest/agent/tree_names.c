/* Names of a directory, and what a record says of a file. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tree.h"

static int compare(const void *one, const void *other)
{
	return strcmp(*(char *const *)one, *(char *const *)other);
}

static bool add(char ***names, size_t *count, size_t *room, const char *name)
{
	char **larger;

	if (*count + 1 >= *room) {
		larger = realloc(*names, (*room * 2 + 16) * sizeof(char *));
		if (!larger)
			return false;
		*names = larger;
		*room = *room * 2 + 16;
	}
	(*names)[*count] = strdup(name);
	if (!(*names)[*count])
		return false;
	(*names)[++*count] = NULL;
	return true;
}

void tree_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

char **tree_names(int directory)
{
	int own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	char **names = calloc(1, sizeof(char *));
	size_t count = 0, room = 1;
	struct dirent *entry;
	int error = d && names ? 0 : errno;

	while (!error) {
		errno = 0;
		entry = readdir(d);
		if (!entry) {
			error = errno;
			break;
		}
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
		    !add(&names, &count, &room, entry->d_name))
			error = ENOMEM;
	}
	if (d)
		closedir(d);
	else if (own >= 0)
		close(own);
	if (error) {
		tree_names_free(names);
		errno = error;
		return NULL;
	}
	if (count)
		qsort(names, count, sizeof(char *), compare);
	return names;
}

void tree_put_entry(struct buffer *to, const char *name, const struct stat *status)
{
	int64_t time_ns = status->st_mtim.tv_sec * 1000000000ll + status->st_mtim.tv_nsec;
	uint8_t key[16];

	put_string(to, TAG_NAME, name);
	put_number(to, TAG_MODE, status->st_mode);
	put_number(to, TAG_UID, status->st_uid);
	put_number(to, TAG_GID, status->st_gid);
	put_number(to, TAG_TIME_NS, time_ns < 0 ? 0 : (uint64_t)time_ns);
	put_number(to, TAG_SIZE_BYTES, (uint64_t)status->st_size);
	if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode))
		put_number(to, TAG_DEVICE_NUMBER,
			   (uint64_t)major(status->st_rdev) << 32 | minor(status->st_rdev));
	if (!S_ISDIR(status->st_mode) && status->st_nlink > 1) {
		put_u64(key, status->st_dev);
		put_u64(key + 8, status->st_ino);
		put_bytes(to, TAG_FILE_KEY, key, sizeof(key));
	}
}
