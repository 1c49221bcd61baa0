/*
 * embedded_broker.c
 *		Tends the embedded broker: an in-memory broker that speaks Kafka's protocol
 *		on a loopback port, for trying and testing.
 *
 * The broker is a program of its own, spine-broker (src/broker), which has nothing
 * of the server's memory, so that none of its clients can harm the server.  This
 * background worker starts the program, says where it is, says how it ended, and starts
 * another.
 *
 * The program outlives this process, so that a crash restart of the server loses
 * nothing of the log.  The program ends with the postmaster, or when it is told to.  It
 * is found again by the Unix socket at which it listens.  A socket whose program is
 * gone, or that came with a copy of the data directory, refuses the connection.
 * There is no process id or lock that could be mistaken.
 *
 * The broker asks its Kafka clients for no password: anybody who can connect to
 * loopback can read and write it.  It drops the oldest records of a partition beyond
 * 5 MB; spine's own producers take care not to overrun it.
 */
#include "process/embedded_broker.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "catalog/pipeline.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "process/positions.h"
#include "process/shared.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/* In the data directory, where processes of the server run; in no base backup. */
#define SOCKET_PATH		PG_STAT_TMP_DIR "/spine-broker"

/* What the program finds open; see src/broker/main.c. */
#define PROGRAM_POSTMASTER_FD	3
#define PROGRAM_LISTENER_FD		4

#define RETRY_MS		5000	/* after a program that did not come up */

extern char **environ;

static int	control = -1;		/* the connection to the program; -1: none */
static bool started;			/* the program was started by this process */
static bool answered;			/* the program has said where it listens */
static TimestampTz start_after = 0; /* 0: at once */

static struct sockaddr_un
socket_address(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};

	return address;
}

static void
disconnect(void)
{
	if (control < 0)
		return;
	close(control);
	control = -1;
	ReleaseExternalFD();
}

/* Connects to a program that is running.  False: there is none. */
static bool
connect_to_program(void)
{
	struct sockaddr_un address = socket_address();
	int			fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(), errmsg("could not create a socket: %m")));
	if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
	{
		close(fd);
		return false;
	}
	ReserveExternalFD();
	control = fd;
	answered = false;
	return true;
}

/*
 * The program's listening socket.  It is made here, so that we can connect before the
 * program accepts.
 */
static int
make_listener(void)
{
	struct sockaddr_un address = socket_address();
	int			fd;

	(void) unlink(SOCKET_PATH);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 &&
		bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0 &&
		listen(fd, 4) == 0)
		return fd;
	ereport(ERROR,
			(errcode_for_socket_access(),
			 errmsg("could not listen on \"%s\": %m", SOCKET_PATH)));
}

static void
make_cluster_id(char *id, size_t size)
{
	uint64		number;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	snprintf(id, size, SPINE_EMBEDDED_PREFIX "%016llx", (unsigned long long) number);
}

/*
 * Executes the program, in a session of its own: a server that restarts after a crash
 * signals the process groups of its children.  The program gets the two descriptors and
 * the server's log, with no signal blocked or ignored.  It gets none of the memory,
 * since it is another program.  Returns 0, or an error number.
 */
static int
spawn(const char *path, char **argv, int listener, int watch)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t	none;
	sigset_t	all;
	pid_t		pid;
	int			rc;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&files, watch, PROGRAM_POSTMASTER_FD);
	posix_spawn_file_actions_adddup2(&files, listener, PROGRAM_LISTENER_FD);
	posix_spawn_file_actions_addclosefrom_np(&files, PROGRAM_LISTENER_FD + 1);
	rc = posix_spawn(&pid, path, &files, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	return rc;
}

static void
start_program(void)
{
	char		id[SPINE_MAX_CLUSTER_LEN];
	char		path[MAXPGPATH];
	char	   *argv[] = {"spine-broker", id, NULL};
	char	   *name;
	int			fd;
	int			listener;
	int			watch;
	int			rc;

	make_cluster_id(id, sizeof(id));
	strlcpy(path, my_exec_path, sizeof(path));
	name = last_dir_separator(path) + 1;
	strlcpy(name, argv[0], sizeof(path) - (name - path));

	/* above the numbers that they are to get, so that neither is overwritten */
	fd = make_listener();
	listener = fcntl(fd, F_DUPFD_CLOEXEC, PROGRAM_LISTENER_FD + 1);
	close(fd);
	watch = fcntl(postmaster_alive_fds[POSTMASTER_FD_WATCH], F_DUPFD_CLOEXEC, PROGRAM_LISTENER_FD + 1);
	rc = spawn(path, argv, listener, watch);
	close(watch);
	close(listener);

	if (rc != 0)
	{
		LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
		snprintf(spine_shared->broker.why_not, sizeof(spine_shared->broker.why_not),
				 "could not execute \"%s\": %s", path, strerror(rc));
		LWLockRelease(spine_shared->lock);
		errno = rc;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not start the embedded broker: could not execute \"%s\": %m", path),
				 errhint("\"make install\" puts it beside the server's programs.")));
	}
}

/* Sends the program a message.  If it is gone, read_message finds out. */
static void
tell_program(const char *message)
{
	if (control >= 0)
		(void) send(control, message, strlen(message), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Whenever the topic may have changed.  The program answers with its address. */
static void
ask_for_topic(void)
{
	char	   *message = psprintf("topic %s", spine_topic);

	tell_program(message);
	pfree(message);
}

/* The program listens. */
static void
publish_broker(const char *address, const char *cluster_id)
{
	SpineEmbeddedBroker *broker = &spine_shared->broker;

	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	strlcpy(broker->cluster_id, cluster_id, sizeof(broker->cluster_id));
	strlcpy(broker->address, address, sizeof(broker->address));
	broker->why_not[0] = '\0';
	spine_shared_wake_workers(InvalidOid);
	LWLockRelease(spine_shared->lock);
	ConditionVariableBroadcast(&spine_shared->progress);

	if (started)
		ereport(LOG,
				(errmsg("embedded broker listening on %s", address),
				 errdetail("It keeps its log in memory: it is for trying and testing.")));
	else
		ereport(LOG,
				(errmsg("embedded broker found listening on %s, with its log", address)));
}

/* Nobody is to connect any more.  reason: how the program ended, or NULL. */
static void
withdraw_broker(const char *reason)
{
	LWLockAcquire(spine_shared->lock, LW_EXCLUSIVE);
	spine_shared->broker.address[0] = '\0';
	if (reason)
		strlcpy(spine_shared->broker.last_end, reason, sizeof(spine_shared->broker.last_end));
	spine_shared_wake_workers(InvalidOid);
	LWLockRelease(spine_shared->lock);
}

static void
note_end(const char *reason)
{
	withdraw_broker(reason);
	tell_program("stop");		/* it may go: it is written down */
	disconnect();

	/* a program that does not even come up is not started all the time */
	start_after = answered ? 0 : TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);

	/* last, as we may be told to end here */
	ereport(LOG,
			(errmsg("embedded broker ended (%s)", reason),
			 errdetail("Its log is gone; another one is started.")));
}

static void
read_message(void)
{
	char		message[512];
	char		address[64];
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];
	ssize_t		len = recv(control, message, sizeof(message) - 1, MSG_DONTWAIT);

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	message[Max(len, 0)] = '\0';
	if (sscanf(message, "listening %63s %63s", address, cluster_id) == 2)
	{
		if (!answered)
			publish_broker(address, cluster_id);
		answered = true;
	}
	else if (strncmp(message, "ended ", 6) == 0)
		note_end(message + 6);
	else if (started || answered)
		note_end("without a word");
	else
		disconnect();			/* it was about to end, with an earlier server or by itself */
}

static bool
is_wanted(void)
{
	bool		wanted;

	LWLockAcquire(spine_shared->lock, LW_SHARED);
	wanted = spine_shared->broker.wanted;
	LWLockRelease(spine_shared->lock);
	return wanted;
}

/*
 * This process takes the program with it only when the launcher does not want a broker
 * any more.  Otherwise the next process finds the program, or the program ends with the
 * server.
 */
static void
leave_program(int code, Datum arg)
{
	if (is_wanted())
		return;
	withdraw_broker(NULL);
	tell_program("stop");
	(void) unlink(SOCKET_PATH);
}

bool
spine_embedded_broker_is_left(void)
{
	struct stat st;

	return stat(SOCKET_PATH, &st) == 0;
}

/* Connects to the program, which is started if there is none. */
static void
find_program(void)
{
	started = false;
	if (!connect_to_program())
	{
		start_program();
		started = true;
		if (!connect_to_program())
			start_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);
	}
	ask_for_topic();
}

/* Until the program says something, the latch is set, or it is time to start another. */
static void
wait_and_read(void)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout_ms = -1;

	if (control >= 0)
		events |= WL_SOCKET_READABLE;
	else
	{
		events |= WL_TIMEOUT;
		timeout_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), start_after);
	}
	events = WaitLatchOrSocket(MyLatch, events, control >= 0 ? control : PGINVALID_SOCKET,
							   timeout_ms, PG_WAIT_EXTENSION);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (control >= 0 && (events & WL_SOCKET_READABLE))
		read_message();
}

void
spine_embedded_broker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGCHLD, SIG_IGN);	/* its guard says how the program ended */
	BackgroundWorkerUnblockSignals();

	if (!spine_shared_claim(&spine_shared->broker.pid))
		proc_exit(0);

	/* to no database: only so that pg_stat_activity shows the process */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	before_shmem_exit(leave_program, 0);
	if (!is_wanted())
	{
		/* we are here to stop what a former process has left */
		(void) connect_to_program();
		proc_exit(0);
	}

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			ask_for_topic();
		}
		if (control < 0 && start_after <= GetCurrentTimestamp())
			find_program();
		wait_and_read();
	}
}
