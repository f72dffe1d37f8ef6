#include "lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *environment_value(char *const *env, const char *name)
{
	size_t length = strlen(name);

	for (; *env; env++)
		if (!strncmp(*env, name, length) && (*env)[length] == '=')
			return *env + length + 1;
	return NULL;
}

static int executable(const char *path)
{
	struct stat status;

	if (stat(path, &status))
		return errno;
	if (S_ISDIR(status.st_mode))
		return EISDIR;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) ? errno : 0;
}

int lookup_command(const char *name, char *const *env, char *path, size_t size)
{
	const char *directory = environment_value(env, "PATH"), *end;
	int length;

	if (strchr(name, '/')) {
		if ((size_t)snprintf(path, size, "%s", name) >= size)
			return ENAMETOOLONG;
		return executable(path);
	}
	for (; directory && *name; directory = *end ? end + 1 : NULL) {
		end = strchrnul(directory, ':');
		length = (int)(end - directory);
		if ((size_t)snprintf(path, size, "%.*s/%s", length ? length : 1,
				     length ? directory : ".", name) < size &&
		    !executable(path))
			return 0;
	}
	return ENOENT;
}
