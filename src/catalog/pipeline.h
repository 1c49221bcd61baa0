/*
 * pipeline.h
 *		Pipelines and sinks: rows of the extension's catalog as structs.
 */
#ifndef SPINE_PIPELINE_H
#define SPINE_PIPELINE_H

#include "compat.h"

/* How a value is read that its type alone does not explain. */
typedef enum SpineReading
{
	SPINE_READ_PLAINLY,
	SPINE_READ_EPOCH_S,			/* seconds since 1970-01-01 UTC, perhaps with a fraction */
	SPINE_READ_EPOCH_MS,
	SPINE_READ_EPOCH_US,
	SPINE_READ_DAYS,			/* since 1970-01-01 */
	SPINE_READ_BASE64,
	SPINE_READ_HEX
} SpineReading;

/* A column of a sink, and the source of its values. */
typedef struct SpineMapping
{
	char	   *column;			/* "*": the one jsonb column that no other mapping names */
	char	   *place;			/* a key, a path, or "$partition" and the like; NULL: sql */
	char	   *sql;			/* an expression over the record */
	char	   *default_text;	/* of a value that is absent or null; NULL: it has none */
	SpineReading reading;
} SpineMapping;

/* A row of spine_sinks. */
typedef struct SpineSinkDefinition
{
	Oid			target;			/* the table */
	char	   *mode;
	int			nkeys;			/* 0: append: it has no key; upsert: the primary key */
	char	  **keys;
	char	   *version;		/* NULL: append, or the log's order decides */
	int			nmappings;		/* 0: every column of the table, from the key of its name */
	SpineMapping *mappings;
	char	   *filter;			/* an SQL condition, or NULL */
} SpineSinkDefinition;

typedef struct SpinePipeline
{
	MemoryContext context;		/* holds all of this */
	NameData	name;
	char	   *topic;			/* or a list, or a regular expression: see the catalog */
	char	   *server;			/* NULL: the default cluster */
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

/* The same, whether it is enabled or not. */
extern SpinePipeline *spine_pipeline_load_any(const char *schema, const NameData *name);

#endif							/* SPINE_PIPELINE_H */
