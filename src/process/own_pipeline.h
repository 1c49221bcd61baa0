/*
 * own_pipeline.h
 *		Pipelines for those who may change them.
 */
#ifndef SPINE_OWN_PIPELINE_H
#define SPINE_OWN_PIPELINE_H

#include "catalog/pipeline.h"

/*
 * The pipeline of a name, in a memory context below the current one.  Raises an error when
 * there is none, or when the current user may not change it.  to_do: for the error, what
 * the user wants to do.  In a transaction with SPI.
 */
extern SpinePipeline *spine_own_pipeline_load(const char *schema, const NameData *name, const char *to_do);

#endif							/* SPINE_OWN_PIPELINE_H */
