/*
 * producer.h
 *		Sending records through a client of client_cache.h, and what became of them.
 */
#ifndef SPINE_PRODUCER_H
#define SPINE_PRODUCER_H

#include "event/record.h"
#include "kafka/client.h"

/* A record to be sent. */
typedef struct SpineMessage
{
	const char *topic;
	int32		partition;		/* -1: the key decides */
	const void *key;			/* NULL: the record has no key */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	const SpineHeader *headers;
	int			nheaders;
	uint64		tag;			/* the caller's, for SpineReport */
} SpineMessage;

/* What became of one record. */
typedef struct SpineReport
{
	const char *error;			/* NULL: the broker has acknowledged the record */
	bool		is_purged;		/* that is the error */
	uint64		tag;			/* of the message */
	const char *topic;
	int32		partition;
	int64		offset;			/* if acknowledged */
	const char *key;
	size_t		key_len;
	size_t		value_len;
} SpineReport;

/*
 * Waits for the broker for up to timeout_ms, the first time that the client is to send
 * to a topic.  Otherwise the library would ask about the topic with the first record,
 * and if it was not connected by then, again only a second later.  A broker that does
 * not answer is found out by the reports.
 */
extern void spine_producer_prepare(SpineClient *client, const char *topic, int timeout_ms);

/*
 * Queues a copy of a record, without waiting.  False: the queue is full.  Raises an
 * error when the record cannot be sent at all.
 */
extern bool spine_producer_send(SpineClient *client, const SpineMessage *message);

/*
 * The next report, without waiting.  False: there is none yet.  The report's pointers
 * are valid until the next call.
 */
extern bool spine_producer_poll(SpineClient *client, SpineReport *report);

/*
 * Drops what is queued and not on its way yet; reports will say so.  What is on its way
 * may still arrive.  The library does it a little later, and may drop what is sent meanwhile.
 */
extern void spine_producer_purge(SpineClient *client);

/* Will the client refuse every record from now on?  Then only a new one helps. */
extern bool spine_producer_is_broken(const SpineClient *client);

#endif							/* SPINE_PRODUCER_H */
