#include "security.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lookup.h"
#include "users.h"

static void set_oom_score(const struct launch *l)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", l->process->oom_score_adj);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* The agent's own -1000 must not be inherited: the guest would have nothing to kill. */
	if (fd < 0 || write(fd, text, (size_t)length) != length)
		child_fail(l, errno, "can't set oom_score_adj to %s: %m", text);
	close(fd);
}

static void add_home(struct launch *l, const char *home)
{
	struct strings *env = (struct strings *)&l->process->env;
	char *entry;

	if (environment_value(env->items, "HOME"))
		return;
	if (asprintf(&entry, "HOME=%s", home) < 0)
		child_fail(l, ENOMEM, "out of memory");
	env->items[env->count++] = entry;
	env->items[env->count] = NULL;
}

/* So that /dev/stdout and the like can be opened again by the user. */
static void own_stdio(uid_t uid)
{
	struct stat status;

	for (int fd = 0; fd < 3; fd++)
		if (!fstat(fd, &status) && (S_ISFIFO(status.st_mode) || isatty(fd)) &&
		    fchown(fd, uid, (gid_t)-1))
			continue; /* a file system that won't: as with Docker, no reason to fail */
}

static void load_seccomp(const struct launch *l)
{
	struct sock_fprog program = { (unsigned short)l->seccomp_count,
				      (struct sock_filter *)l->seccomp };

	if (l->seccomp_count && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		child_fail(l, errno, "can't load the seccomp filter: %m");
}

static void drop_bounding(const struct launch *l)
{
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
		if ((capability > 63 || !(l->process->capabilities >> capability & 1)) &&
		    prctl(PR_CAPBSET_DROP, capability))
			child_fail(l, errno, "can't drop capability %d: %m", capability);
}

static void become(const struct launch *l, const struct identity *who)
{
	if (setgroups(who->group_count, who->groups) || setresgid(who->gid, who->gid, who->gid) ||
	    setresuid(who->uid, who->uid, who->uid))
		child_fail(l, errno, "can't become user %u:%u: %m", who->uid, who->gid);
}

/* None inheritable or ambient, as in Docker since 20.10.14. */
static void set_capabilities(const struct launch *l, bool is_root)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int i = 0; is_root && i < 2; i++) {
		/* What the kernel doesn't know can't be permitted; the bounding set is the filter. */
		for (int bit = 0; bit < 32; bit++)
			if (l->process->capabilities >> (i * 32 + bit) & 1 &&
			    prctl(PR_CAPBSET_READ, i * 32 + bit) == 1)
				data[i].permitted |= 1u << bit;
		data[i].effective = data[i].permitted;
	}
	if (syscall(SYS_capset, &header, data))
		child_fail(l, errno, "can't set capabilities: %m");
}

void security_apply(struct launch *l)
{
	static struct identity who;
	char error[300];
	int result;

	set_oom_score(l);
	umask(022);
	result = identity_resolve(l->process->user, l->process->groups.items, "/etc/passwd",
				  "/etc/group", &who, error, sizeof(error));
	if (result)
		child_fail(l, result, "%s", error);
	add_home(l, who.home);
	own_stdio(who.uid);
	/* Without no_new_privs loading takes CAP_SYS_ADMIN; with it, the later the better. */
	if (!l->process->no_new_privileges)
		load_seccomp(l);
	drop_bounding(l);
	become(l, &who);
	set_capabilities(l, who.uid == 0);
	if (l->process->no_new_privileges) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			child_fail(l, errno, "can't set no_new_privs: %m");
		load_seccomp(l);
	}
}
