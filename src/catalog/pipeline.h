/*
 * pipeline.h
 *		Pipelines and sinks: rows of the extension's catalog as structs.
 */
#ifndef SPINE_PIPELINE_H
#define SPINE_PIPELINE_H

#include "compat.h"

/* A column of a sink, and the source of its values. */
typedef struct SpineMapping
{
	char	   *column;
	char	   *source;			/* a JSON key, or "$partition" and the like */
} SpineMapping;

/* A row of spine_sinks. */
typedef struct SpineSinkDefinition
{
	Oid			target;			/* the table */
	char	   *mode;
	int			nkeys;			/* 0: it has no key (mode append only) */
	char	  **keys;
	char	   *version;		/* NULL in mode append */
	int			nmappings;		/* 0: every column of the table, from the key of its name */
	SpineMapping *mappings;
} SpineSinkDefinition;

typedef struct SpinePipeline
{
	MemoryContext context;		/* holds all of this */
	NameData	name;
	char	   *topic;
	Oid			owner;
	bool		starts_at_latest;
	int			nsinks;
	SpineSinkDefinition *sinks; /* in the order in which they are applied */
} SpinePipeline;

/* The setting spine.topic. */
extern char *spine_topic;

/* When the server starts: defines that setting. */
extern void spine_pipeline_settings_init(void);

/*
 * The topic that a pipeline reads, given the topic of its row: the setting spine.topic
 * when that is NULL.  The caller copies what it keeps.
 */
extern const char *spine_pipeline_topic_or_default(const char *topic);

/*
 * Reads one pipeline; NULL: it does not exist, or is not enabled.  It lives in a context
 * of its own below TopMemoryContext, which the caller deletes.  In a transaction with SPI;
 * may raise an error.
 */
extern SpinePipeline *spine_pipeline_load(const char *schema, const NameData *name);

#endif							/* SPINE_PIPELINE_H */
