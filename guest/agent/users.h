/* USER and GROUP of a process, resolved as Docker does: in the container's own files. */
#ifndef SLIPWAY_USERS_H
#define SLIPWAY_USERS_H

#include <stddef.h>
#include <sys/types.h>

#define MAX_GROUPS 256

struct identity {
	uid_t uid;
	gid_t gid;
	gid_t groups[MAX_GROUPS];
	size_t group_count;
	char home[4096];
};

/* `user`: "", "name|uid[:group|gid]". `extra`: NULL-terminated names or numbers. The files may be
 * missing. Returns 0 or an errno with Docker's words in `error`. */
int identity_resolve(const char *user, char *const *extra, const char *passwd_path,
		     const char *group_path, struct identity *who, char *error, size_t error_size);

#endif
