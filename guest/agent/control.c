#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union ancillary {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS) + CMSG_SPACE(sizeof(struct ucred))];
};

bool control_pair(int ends[2])
{
	int on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return false;
	if (!fcntl(ends[0], F_SETFL, O_NONBLOCK) &&
	    !setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
		return true;
	close(ends[0]);
	close(ends[1]);
	return false;
}

bool control_send(int fd, const struct control_message *m, const int *fds, int fd_count)
{
	struct iovec part = { (void *)m, sizeof(*m) };
	union ancillary ancillary = { 0 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fd_count) {
		header.msg_control = ancillary.bytes;
		header.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
		c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)fd_count);
	}
	return sendmsg(fd, &header, MSG_NOSIGNAL) == (ssize_t)sizeof(*m);
}

int control_receive(int fd, struct control_received *r)
{
	struct iovec part = { &r->message, sizeof(r->message) };
	union ancillary ancillary = { 0 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1,
				 .msg_control = ancillary.bytes,
				 .msg_controllen = sizeof(ancillary.bytes) };
	struct ucred sender;
	ssize_t count;

	memset(r, 0, sizeof(*r));
	r->fds[0] = r->fds[1] = -1;
	do
		count = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return errno == EAGAIN ? -1 : 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		if (c->cmsg_type == SCM_RIGHTS) {
			memcpy(r->fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&sender, CMSG_DATA(c), sizeof(sender));
			r->pid = sender.pid;
		}
	}
	r->message.text[sizeof(r->message.text) - 1] = 0;
	return count == (ssize_t)sizeof(r->message);
}
