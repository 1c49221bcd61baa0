/*
 * log.h
 *		The log itself: a broker that speaks Kafka's protocol.
 */
#ifndef BROKER_LOG_H
#define BROKER_LOG_H

/*
 * Serves Kafka's protocol on a loopback port, and answers commands from `channel`.
 * "topic NAME" creates the topic if it does not exist; every command is answered with
 * "listening ADDRESS CLUSTER_ID".  The process ends when the channel is closed.
 */
extern void serve_log(int channel, const char *cluster_id) __attribute__((noreturn));

#endif							/* BROKER_LOG_H */
