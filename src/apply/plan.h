/*
 * plan.h
 *		The plan of a pipeline: the fields to decode, and the sinks as their tables are now.
 *
 * A process may have several, of the same pipeline or of others.
 */
#ifndef SPINE_PLAN_H
#define SPINE_PLAN_H

#include "apply/sink.h"
#include "apply/trust.h"
#include "apply/watch.h"
#include "catalog/pipeline.h"

typedef struct SpinePlan
{
	MemoryContext context;
	NameData	pipeline;
	int			nsinks;
	SpineSink  *sinks;			/* in the order in which they are applied */
	SpineFieldList fields;
	const SpineFormat *format;
	SpineDecoder *decoder;		/* of these fields */
	size_t		max_record_memory;	/* bytes that making jsonb of one record may take */
	SpineTrust *trust;			/* in the sinks' tables */
	SpineWatch *watch;			/* on all that the plan was made of */
} SpinePlan;

/*
 * Makes the plan of a pipeline, which is not needed afterwards.  The plan lives in a
 * context of its own below TopMemoryContext.  max_record_memory: the most bytes that
 * making jsonb of one record may take.  In a transaction with SPI.  Raises an error
 * (structural) when a table or column is not there, or does not fit; or what a constant in an
 * expression raises.
 */
extern SpinePlan *spine_plan_make(const SpinePipeline *pipeline, size_t max_record_memory);

/* Frees a plan, with all that it holds; safe on NULL.  Not while it is applied. */
extern void spine_plan_free(SpinePlan *plan);

/*
 * Is the plan still valid?  In a transaction that has locked the sinks' tables: nothing that
 * it was made of has changed (watch.h), its SQL still names the tables that the sinks mean,
 * and the pipeline's owner may still act for the roles that the plan runs as.
 */
extern bool spine_plan_is_current(const SpinePlan *plan);

#endif							/* SPINE_PLAN_H */
