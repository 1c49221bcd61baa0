/*
 * main.c
 *		spine-broker: the embedded broker, as a program of its own, so that
 *		nothing its clients send can harm PostgreSQL.
 *
 *		spine-broker CLUSTER_ID
 *
 * A background worker of spine starts this program; people do not.  The program finds
 * two descriptors open: the read end of a pipe that is closed when the postmaster
 * ends, and a listening Unix socket, where the background worker connects and gives
 * its commands.  The background worker dies when the server restarts after a crash.
 * Its successor finds this program again at the same socket.
 *
 * The program is two processes.  This one, the guard, holds the socket and the pipe,
 * and never sees a byte from a Kafka client.  The log is its child.  So the guard can
 * always say how the log ended.
 *
 * When the background worker dies, another process inherits the guard.  In a container
 * that is the postmaster, which would take a child ended by a signal for a crash of one
 * of its own.  So both processes exit with 0 when they are told to end, and the log
 * does the same when the guard is gone.
 */
#include "log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The descriptors that the background worker leaves open. */
#define POSTMASTER_FD	3
#define LISTENER_FD		4

/* Ends either process when it is told to: see above. */
static void
end(int signal_number)
{
	(void) signal_number;
	_exit(0);
}

/*
 * When memory runs out, the kernel should end the log rather than a process of the
 * server.  And when a packet crashes the log, core files must not fill the disk.
 */
static void
be_expendable(void)
{
	static const struct rlimit no_core = {0, 0};
	int			fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd >= 0)
	{
		if (write(fd, "1000", 4) < 0)
			perror("spine-broker: oom_score_adj");
		close(fd);
	}
	(void) setrlimit(RLIMIT_CORE, &no_core);
}

/* Starts the log.  Returns our end of the channel to it. */
static int
start_log(const char *cluster_id, pid_t *pid)
{
	pid_t		guard = getpid();
	int			channel[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel) != 0 || (*pid = fork()) < 0)
	{
		perror("spine-broker");
		exit(1);
	}
	if (*pid == 0)
	{
		/* SIGTERM comes when the guard is gone, and ends the log with 0 */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != guard)
			_exit(0);
		close(POSTMASTER_FD);
		close(LISTENER_FD);
		close(channel[0]);
		be_expendable();
		serve_log(channel[1], cluster_id);
	}
	close(channel[1]);
	return channel[0];
}

/* Waits for the log, which has closed its channel, and writes how it ended. */
static void
describe_end(pid_t pid, char *text, size_t size)
{
	int			status = 0;

	(void) waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		snprintf(text, size, "ended signal %d", WTERMSIG(status));
	else
		snprintf(text, size, "ended exit status %d", WEXITSTATUS(status));
}

/* Passes one message on.  False: the sender is gone. */
static int
pass_on(int from, int to)
{
	char		message[512];
	ssize_t		len = recv(from, message, sizeof(message), 0);

	if (len <= 0)
		return 0;
	if (len == 4 && memcmp(message, "stop", 4) == 0)
		end(0);
	if (to >= 0)
		(void) send(to, message, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	return 1;
}

int
main(int argc, char **argv)
{
	enum
	{
		POSTMASTER, LISTENER, LOG, WORKER, N
	};
	struct pollfd fds[N] = {
		[POSTMASTER] = {.fd = POSTMASTER_FD},
		[LISTENER] = {.fd = LISTENER_FD, .events = POLLIN},
		[LOG] = {.fd = -1, .events = POLLIN},
		[WORKER] = {.fd = -1, .events = POLLIN}
	};
	char		how_it_ended[64] = "";
	int			is_told = 0;
	pid_t		log_pid;

	if (argc != 2 || fcntl(POSTMASTER_FD, F_GETFD) < 0 || fcntl(LISTENER_FD, F_GETFD) < 0)
	{
		fprintf(stderr, "spine-broker: not for use by hand; the extension spine in PostgreSQL starts it\n");
		return 1;
	}
	signal(SIGTERM, end);
	signal(SIGINT, end);
	signal(SIGQUIT, end);
	signal(SIGHUP, end);
	fds[LOG].fd = start_log(argv[1], &log_pid);

	for (;;)
	{
		if (poll(fds, N, -1) < 0)
			continue;

		/* checked first, so that the next server to start does not find this program */
		if (fds[POSTMASTER].revents)
			return 0;
		if (fds[WORKER].revents && !pass_on(fds[WORKER].fd, fds[LOG].fd))
		{
			close(fds[WORKER].fd);
			fds[WORKER].fd = -1;
		}
		if (fds[LISTENER].revents)
		{
			/* a new background worker takes the place of one that is gone */
			if (fds[WORKER].fd >= 0)
				close(fds[WORKER].fd);
			fds[WORKER].fd = accept(LISTENER_FD, NULL, NULL);
			is_told = 0;
		}
		if (fds[LOG].revents && !pass_on(fds[LOG].fd, fds[WORKER].fd))
		{
			close(fds[LOG].fd);
			fds[LOG].fd = -1;
			describe_end(log_pid, how_it_ended, sizeof(how_it_ended));
		}

		/* told to each background worker, until one answers with "stop" */
		if (how_it_ended[0] && fds[WORKER].fd >= 0 && !is_told)
		{
			(void) send(fds[WORKER].fd, how_it_ended, strlen(how_it_ended), MSG_NOSIGNAL | MSG_DONTWAIT);
			is_told = 1;
		}
	}
}
