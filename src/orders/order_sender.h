/*
 * order_sender.h
 *		Sends synthetic order events, and counts what became of them.
 */
#ifndef SPINE_ORDER_SENDER_H
#define SPINE_ORDER_SENDER_H

#include "kafka/client.h"
#include "orders/tenant.h"

/* The caller reads the last four fields. */
typedef struct SpineOrderSender
{
	SpineClient *client;
	const char *topic;
	uint64		id;				/* tag of its records: other reports are not ours */
	int64		sent;
	int64		acknowledged;
	int64		failed;
	const char *error;			/* why the first one failed; a constant, or NULL */
} SpineOrderSender;

/*
 * The client and the topic must outlive the sender; a process has one sender at a time.
 * Waits for the broker for up to a second, the first time that the client sends to the
 * topic.  Raises an error when the embedded broker does not answer.
 */
extern void spine_order_sender_begin(SpineOrderSender *sender, SpineClient *client,
									 const char *topic);

/*
 * Sends one event, without waiting.  False: there is no room now, in the library's
 * queue or at the embedded broker.  Raises an error when the event cannot be sent.
 */
extern bool spine_order_sender_send(SpineOrderSender *sender, const SpineTenant *tenant);

/* Counts the reports that have come, without waiting. */
extern void spine_order_sender_poll(SpineOrderSender *sender);

/*
 * Drops the events that are still queued here; those on their way may still arrive.
 * Never waits.  After an error too.
 */
extern void spine_order_sender_end(SpineOrderSender *sender);

#endif							/* SPINE_ORDER_SENDER_H */
