/*
 * library.h
 *		What a client is made of: for the files of src/kafka, which call librdkafka.
 *
 * No other folder may include this header, nor one that includes it.
 */
#ifndef SPINE_LIBRARY_H
#define SPINE_LIBRARY_H

#include <librdkafka/rdkafka.h>

#include "kafka/client.h"

typedef enum SpineClientKind
{
	SPINE_CONSUMER,
	SPINE_PRODUCER
} SpineClientKind;

/* How much a consumer may fetch before it is asked for it. */
typedef struct SpinePrefetch
{
	int			partitions;		/* that share one answer of a broker */
	int			records;		/* the most records, even if they have few bytes: see below */
} SpinePrefetch;

/*
 * The limits of what is prefetched.  The library counts the bytes of values, but
 * neither keys nor headers.  Where those are larger than the values, the library has
 * to be told how many records these bytes are.  The number of small records is limited
 * anyway.
 */
#define SPINE_PREFETCH_KB		32768
#define SPINE_PREFETCH_RECORDS	100000

/*
 * Starts a client of a cluster that has an address.  group_id and prefetch are for
 * consumers, NULL otherwise.  Raises an error when the options do not fit together.
 * The client lives until spine_client_destroy, or until the process ends.
 */
extern SpineClient *spine_client_create(SpineClientKind kind, const SpineCluster *cluster,
										const char *group_id, const SpinePrefetch *prefetch);

/* Safe on NULL.  The owner has released its messages and events before. */
extern void spine_client_destroy(SpineClient *client);

/* Brokers that share a slot share their count: that costs a needless look, no more. */
#define SPINE_CONNECTION_SLOTS	64

struct SpineClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;	/* messages, or delivery reports */
	int			wake_fd;		/* readable: poll the queue */
	int			wake_write_fd;
	bool		embedded;		/* the cluster is the embedded broker */
	const char *server_name;	/* that declares the cluster; NULL: the settings do */
	char		cluster_id[SPINE_MAX_CLUSTER_LEN];	/* "": not known yet */
	SpineError	error;			/* see spine_client_error */

	/* how often the library has connected to a broker, by its id; of consumers */
	uint32		connections[SPINE_CONNECTION_SLOTS];

	/*
	 * Called before the client goes, at the end of the process too: the owner
	 * releases what it holds of the library.  Set by the owner, or NULL.
	 */
	void		(*before_release)(void *owner);
	void	   *owner;

	rd_kafka_event_t *reports;	/* being handed out by spine_producer_poll, or NULL */
	rd_kafka_topic_t *topic;	/* the last one that was asked about, or NULL */
	MemoryContext context;		/* of the client; a child of TopMemoryContext */
	struct SpineClient *next;	/* all clients of the process */
};

/*
 * Sets each option of a list on conf.  False and the reason: as in options.h; some
 * options may be set already.
 */
extern bool spine_kafka_options_apply(const char *options, rd_kafka_conf_t *conf,
									  char *reason, size_t reason_size);

/*
 * The configuration of a client; arguments as of spine_client_create.  Raises an error
 * when an option is refused.  The caller adds the callbacks, and frees it.
 */
extern rd_kafka_conf_t *spine_configuration_make(SpineClientKind kind, const SpineCluster *cluster,
												 const char *group_id, const SpinePrefetch *prefetch);

/*
 * How an error of the library has to be met.  Nowhere else do its codes become
 * classes.
 */
extern SpineErrorClass spine_client_classify(rd_kafka_resp_err_t code);

/*
 * Remembers trouble for spine_client_error.  reason is what the library said, or NULL
 * if it only gave the code; then trouble with a better reason stays.  Never raises an
 * error: the library's callbacks may call it.
 */
extern void spine_client_note_error(SpineClient *client, rd_kafka_resp_err_t code,
									const char *reason);
extern void spine_client_forget_error(SpineClient *client);

/*
 * The owner will not poll for a while: what the client reports until spine_client_wake
 * is dropped instead of queued.  False: the client has to be polled, to renew the
 * tokens that it authenticates with.
 */
extern bool spine_client_rest(SpineClient *client);
extern void spine_client_wake(SpineClient *client);

/*
 * Which connection to which broker a message came over: a number for comparison, never
 * 0.  The number may belong to a later connection than the message does, but never to an
 * earlier one: the library reports that it has connected before it fetches anything, and
 * its reports overtake messages.
 */
extern uint64 spine_client_connection(const SpineClient *client,
									  const rd_kafka_message_t *message);

/* Empties the wake pipe.  Called before polling, so that no wake-up is lost. */
extern void spine_client_drain_wakeups(SpineClient *client);

/*
 * Lets another queue of the client's end its sleep as well.  The caller turns that
 * off (rd_kafka_queue_io_event_enable) before the queue or the client goes.
 */
extern void spine_client_watch(SpineClient *client, rd_kafka_queue_t *queue);

#endif							/* SPINE_LIBRARY_H */
