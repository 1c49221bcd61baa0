/*
 * json_chain.h
 *		Chains of jsonb operators in analysed expressions, such as value->'a'->>'b'.
 */
#ifndef SPINE_JSON_CHAIN_H
#define SPINE_JSON_CHAIN_H

#include "compat.h"

#include "event/path.h"
#include "nodes/nodes.h"

typedef struct SpineJsonChain
{
	int			attribute;		/* of the column that it begins at */
	int			nsteps;
	SpinePathStep *steps;
	bool		as_text;		/* it ends with ->> or #>> */
} SpineJsonChain;

/*
 * Is the node a chain of constant steps, so that a strict path finds what the operators do?
 * It begins at a column, perhaps of the query that is `depth` levels outside of the node's.
 * chain: all zero; its steps are in the current memory context.
 */
extern bool spine_json_chain_read(SpineJsonChain *chain, const Node *node, int depth);

#endif							/* SPINE_JSON_CHAIN_H */
