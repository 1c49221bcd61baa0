/*
 * preview.h
 *		What one event does to one sink: the row before and after.
 */
#ifndef SPINE_PREVIEW_H
#define SPINE_PREVIEW_H

#include "apply/plan.h"

typedef enum SpinePreviewAction
{
	SPINE_PREVIEW_INSERT,
	SPINE_PREVIEW_UPDATE,
	SPINE_PREVIEW_UNCHANGED,	/* the row is as it was; or a trigger has kept the event out */
	SPINE_PREVIEW_STALE,		/* the row has a newer version */
	SPINE_PREVIEW_FILTERED
} SpinePreviewAction;

typedef struct SpinePreview
{
	SpinePreviewAction action;
	bool		has_old;
	bool		has_new;
	Datum		old_row;		/* jsonb */
	Datum		new_row;
} SpinePreview;

/*
 * Raises an error if the role that a sink runs as may not read its table, which a preview
 * shows.
 */
extern void spine_preview_check_right(const SpineSink *sink);

/*
 * Applies an event to a sink, as spine_apply does.  The rows in *preview are made in this
 * memory context.  In a transaction that has begun to apply (apply.h); raises what
 * spine_apply would.
 */
extern void spine_preview_apply(SpinePlan *plan, SpineSink *sink, const SpineEvent *event,
								MemoryContext context, SpinePreview *preview);

#endif							/* SPINE_PREVIEW_H */
