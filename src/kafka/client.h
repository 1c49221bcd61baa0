/*
 * client.h
 *		Clients of the broker: the one place that configures, starts and
 *		destroys them.
 *
 * librdkafka's threads never run code of ours: logs, errors, delivery reports
 * and messages are queued, and handled when the owner polls.  The owner sleeps
 * on its latch and on wake_fd, which becomes readable when the queue does.
 */
#ifndef SPINE_CLIENT_H
#define SPINE_CLIENT_H

#include <librdkafka/rdkafka.h>

#include "compat.h"
#include "error.h"
#include "kafka/cluster.h"

typedef enum SpineClientKind
{
	SPINE_CONSUMER,
	SPINE_PRODUCER
} SpineClientKind;

/* Brokers that share a slot share their count: that costs a needless look, no more. */
#define SPINE_CONNECTION_SLOTS	64

typedef struct SpineClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;	/* messages, or delivery reports */
	int			wake_fd;		/* readable: poll the queue */
	bool		embedded;		/* the broker is the embedded one */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* "": not known yet */

	/*
	 * The last trouble the library reported.  Set while polling, on the
	 * owner's own thread; cleared by the owner.
	 */
	rd_kafka_resp_err_t error;
	char		error_text[SPINE_MAX_MESSAGE_LEN];

	/* how often the library has connected to a broker, by its id; of consumers */
	uint32		connections[SPINE_CONNECTION_SLOTS];

	/*
	 * Called before the client goes, at the end of the process too: the owner
	 * releases its messages.  Set by the owner, or NULL.
	 */
	void		(*before_release) (void *owner);
	void	   *owner;

	/* private to kafka.c */
	rd_kafka_topic_t *topic;
	int			wake_write_fd;
	MemoryContext context;
	struct SpineClient *next;
} SpineClient;

/* How much a consumer may fetch before it is asked for it. */
typedef struct SpinePrefetch
{
	int			partitions;		/* that share what a broker sends at a time */
	int			records;		/* at most so many, if there are fewer bytes: see below */
} SpinePrefetch;

/*
 * The limits of what is prefetched.  The library counts the bytes of values, but
 * neither keys nor headers: where those are larger, it has to be told how many
 * records these bytes are.  Small records are bounded by their number anyway.
 */
#define SPINE_PREFETCH_KB		32768
#define SPINE_PREFETCH_RECORDS	100000

/*
 * Starts a client of a cluster that has an address.  group_id and prefetch are for
 * consumers, NULL otherwise.  Raises an error when the options do not fit together.
 * The client lives until spine_client_destroy, or the end of the process.
 */
extern SpineClient *spine_client_create(SpineClientKind kind, const SpineCluster *cluster,
										const char *group_id, const SpinePrefetch *prefetch);

/*
 * The owner will not poll for a while: what the client reports until spine_client_wake
 * is dropped instead of queued.  False: it has to be polled, to renew the tokens that
 * it authenticates with.
 */
extern bool spine_client_rest(SpineClient *client);
extern void spine_client_wake(SpineClient *client);

/* Safe on NULL.  The caller has destroyed its messages and events. */
extern void spine_client_destroy(SpineClient *client);

/*
 * Which connection to which broker a message came over: a number for comparison,
 * not 0.  A newer one may be named than that is, but never an older one: the library
 * reports that it has connected before it fetches anything, and its reports overtake
 * messages.
 */
extern uint64 spine_client_connection(const SpineClient *client,
									  const rd_kafka_message_t *message);

/* Empties the wake pipe; call before polling, so that no wake-up is lost. */
extern void spine_client_drain_wakeups(SpineClient *client);

/*
 * Lets another queue of the client's end its sleep as well.  The caller turns that
 * off (rd_kafka_queue_io_event_enable) before the queue or the client goes.
 */
extern void spine_client_watch(SpineClient *client, rd_kafka_queue_t *queue);

/*
 * Sleeps until the queue or the latch has something, or timeout_ms have passed
 * (-1: for ever).  Resets the latch; does not check for interrupts.
 */
extern void spine_client_wait(SpineClient *client, long timeout_ms);

/*
 * Asks the broker how many partitions a topic has, in slices so that
 * interrupts are served.  Returns 0 when the topic does not exist, -1 when the
 * broker does not answer within timeout_ms (client->error_text says why).
 * Keeps client->cluster_id up to date.
 */
extern int	spine_client_partition_count(SpineClient *client, const char *topic,
										 int timeout_ms);

/*
 * Asks the broker for the first offset of each partition whose record is not
 * older than a time, in one request; -1: there is none.  Milliseconds since
 * 1970, or one of the two below.  False as with -1 above.
 */
#define SPINE_LOG_START		RD_KAFKA_OFFSET_BEGINNING
#define SPINE_LOG_END		RD_KAFKA_OFFSET_END
extern bool spine_client_find_offsets(SpineClient *client, const char *topic,
									  int n, const int32 *partitions, int64 time_ms,
									  int64 *offsets, int timeout_ms);

/* Blocks every signal for threads about to be made; returns the old mask. */
extern sigset_t spine_block_signals(void);
extern void spine_restore_signals(sigset_t old_mask);

#endif							/* SPINE_CLIENT_H */
