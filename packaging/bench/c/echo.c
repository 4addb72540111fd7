// This program is the echo server in C that `make bench` compares with keyhatchd. It sends
// back everything that it receives on a Unix socket. One thread serves all connections
// with epoll.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char buffer[65536];

static int fail(const char *call) {
	perror(call);
	return 1;
}

int main(int argc, char **argv) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
		fprintf(stderr, "usage: echo SOCKET\n");
		return 2;
	}
	strcpy(address.sun_path, argv[1]);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 128) < 0)
		return fail("listen");
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
		return fail("epoll");
	for (;;) {
		struct epoll_event events[64];
		int ready = epoll_wait(epoll, events, 64, -1);
		if (ready < 0 && errno != EINTR)
			return fail("epoll_wait");
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				event.data.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
				if (event.data.fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
					return fail("accept4");
				continue;
			}
			ssize_t got = read(fd, buffer, sizeof buffer);
			if (got <= 0) {
				close(fd);
				continue;
			}
			for (ssize_t sent = 0; sent < got;) {
				ssize_t n = send(fd, buffer + sent, got - sent, MSG_NOSIGNAL);
				if (n <= 0) {
					close(fd);
					break;
				}
				sent += n;
			}
		}
	}
}
