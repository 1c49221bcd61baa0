/*
 * order_sender.h
 *		Sending synthetic order events to the topic.
 */
#ifndef SPINE_ORDER_SENDER_H
#define SPINE_ORDER_SENDER_H

#include "orders/generator.h"
#include "kafka/library.h"

/* A tenant that events are made for. */
typedef struct SpineTenant
{
	char	   *name;			/* UTF-8; the record's key */
	size_t		len;
	char	   *literal;		/* as JSON */
	size_t		message_size;	/* the most that one of its events takes */
} SpineTenant;

/* Events on their way, and what became of them. */
typedef struct SpineDelivery
{
	SpineClient *client;
	const char *topic;
	SpineRandom random;
	char	   *buffer;			/* for one event */
	size_t		buffer_size;
	uint64		id;				/* reports of other deliveries are not ours */
	int64		sent;
	int64		acknowledged;
	int64		failed;
	char		error[256];		/* why the first one failed */
} SpineDelivery;

/* In the current memory context.  Raises an error for a name that cannot be. */
extern void spine_tenant_init(SpineTenant *tenant, const char *utf8_name);

/*
 * In the current memory context; client and topic must outlive it.  The first
 * time that a client sends to a topic, waits for the broker for up to a second.
 */
extern void spine_delivery_begin(SpineDelivery *delivery, SpineClient *client, const char *topic);

/*
 * Sends one event, without waiting.  False: there is no room now, in the
 * library's queue or at the embedded broker.
 */
extern bool spine_delivery_send(SpineDelivery *delivery, const SpineTenant *tenant);

/* Counts the reports that have come, without waiting. */
extern void spine_delivery_poll(SpineDelivery *delivery);

/* Drops what is still queued here; what is on its way may yet arrive. */
extern void spine_delivery_end(SpineDelivery *delivery);

#endif							/* SPINE_ORDER_SENDER_H */
