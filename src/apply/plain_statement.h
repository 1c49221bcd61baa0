/*
 * plain_statement.h
 *		Would PostgreSQL do nothing else with a sink's statement than write the rows?
 */
#ifndef SPINE_PLAIN_STATEMENT_H
#define SPINE_PLAIN_STATEMENT_H

#include "apply/sink.h"

/*
 * Then the rows can be written without the statement SPINE_SINK_PLAIN.  *arbiter: the index
 * in which ON CONFLICT finds rows; InvalidOid: there is none, or more than one.  In a
 * transaction with a lock on the table, as the role that the sink runs as.
 */
extern bool spine_statement_is_plain(SpineSink *sink, Oid *arbiter);

#endif							/* SPINE_PLAIN_STATEMENT_H */
