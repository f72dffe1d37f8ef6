/* Finding a command as Docker does (Go's os/exec.LookPath). */
#ifndef SLIPWAY_LOOKUP_H
#define SLIPWAY_LOOKUP_H

#include <stddef.h>

/* Value of NAME in a NULL-terminated environment; NULL if it isn't there. */
const char *environment_value(char *const *env, const char *name);
/* Writes what to execute to `path`. ENOENT: not found (in $PATH, if `name` has no slash); EACCES: no
 * permission to execute; EISDIR; or what stat says. */
int lookup_command(const char *name, char *const *env, char *path, size_t size);

#endif
