/*
 * log.h
 *		The log itself: a broker that speaks Kafka's protocol.
 */
#ifndef BROKER_LOG_H
#define BROKER_LOG_H

/*
 * Serves Kafka's protocol on a loopback port, and what `channel` asks for:
 * "topic NAME" makes the topic, if it is not there yet, and is answered by
 * "listening ADDRESS CLUSTER_ID".  Ends the process when the channel does.
 */
extern void serve_log(int channel, const char *cluster_id) __attribute__((noreturn));

#endif							/* BROKER_LOG_H */
