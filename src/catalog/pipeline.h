/*
 * pipeline.h
 *		Pipelines and sinks: rows of the extension's catalog as structs.
 */
#ifndef SPINE_PIPELINE_H
#define SPINE_PIPELINE_H

#include "compat.h"

/* A column of a sink and where its value comes from. */
typedef struct SpineColumnMap
{
	char	   *column;
	char	   *source;			/* a JSON key, or "$partition" and the like */
} SpineColumnMap;

typedef enum SpineSinkMode
{
	SPINE_APPEND,
	SPINE_UPSERT
} SpineSinkMode;

typedef struct SpineSink
{
	Oid			target;
	SpineSinkMode mode;
	int			nkeys;			/* 0: none given (append only) */
	char	  **keys;
	char	   *version;		/* NULL in append mode */
	int			ncolumns;		/* 0: every column of the target */
	SpineColumnMap *columns;
} SpineSink;

typedef struct SpinePipeline
{
	MemoryContext context;		/* holds all of this */
	NameData	name;
	char	   *topic;
	Oid			owner;
	bool		starts_at_latest;
	int			nsinks;
	SpineSink  *sinks;
} SpinePipeline;

/*
 * The topic that a pipeline reads, given the topic of its row: the setting spine.topic
 * when that is NULL.  The caller copies what it keeps.
 */
extern const char *spine_pipeline_topic_or_default(const char *topic);

/*
 * Reads one pipeline, or NULL when it does not exist or is not enabled.  Lives
 * in a context of its own below TopMemoryContext; the caller deletes that.  In
 * a transaction with SPI; may raise an error.
 */
extern SpinePipeline *spine_load_pipeline(const char *schema, const NameData *name);

#endif							/* SPINE_PIPELINE_H */
