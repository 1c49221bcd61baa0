/*
 * preview.c
 *		Applies one event to one sink, and tells what became of it.
 *
 * The statements are the sink's own, with RETURNING behind them.  The row that is there
 * before is found by the key.
 */
#include "apply/preview.h"

#include "apply/compare.h"
#include "apply/role.h"
#include "apply/rows.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

/* A column of the table may be called t: this is the row. */
#define ROW_AS_JSONB	"pg_catalog.to_jsonb(t.*)"

void
spine_preview_check_right(const SpineSink *sink)
{
	if (pg_class_aclcheck(sink->table, sink->run_as, ACL_SELECT) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not read table %s, whose rows a preview shows",
					GetUserNameFromId(sink->run_as, false), sink->table_name)));
}

/* Runs a statement; false: it has returned no row. */
static bool
run(const char *sql, MemoryContext context, Datum *row)
{
	MemoryContext old_context;
	bool		isnull;
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	if (SPI_processed == 0)
		return false;
	*row = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	old_context = MemoryContextSwitchTo(context);
	*row = PointerGetDatum(DatumGetJsonbPCopy(*row));
	MemoryContextSwitchTo(old_context);
	return true;
}

/* *is_newer: than the event. */
static bool
find_old_row(const SpineSink *sink, MemoryContext context, Datum *row, bool *is_newer)
{
	const SpineColumn *version = sink->version < 0 ? NULL : &sink->columns[sink->version];
	StringInfoData sql;
	bool		isnull;

	*is_newer = false;
	if (sink->nkeys == 0)
		return false;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT " ROW_AS_JSONB);
	if (version)
		appendStringInfo(&sql, ", t.%s %s u.c%d", quote_identifier(version->name),
						 spine_compare_operator(version, BTGreaterStrategyNumber), sink->version);
	appendStringInfo(&sql, " FROM %s AS t, " SPINE_ROWS " AS u WHERE ", sink->table_name);
	spine_sink_append_same_key(&sql, sink);
	if (!run(sql.data, context, row))
		return false;
	if (version)
		*is_newer = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)) && !isnull;
	return true;
}

/* A row that is there already is no error for the worker, which tries again without it. */
static bool
write_row(const SpineSink *sink, const SpineStoredRows *rows, MemoryContext context, Datum *row)
{
	bool		is_partial = tuplestore_tuple_count(rows->whole) == 0;
	int			first = is_partial ? SPINE_SINK_UPDATE_PARTIAL : SPINE_SINK_SKIP_EXISTING;
	int			last = is_partial ? SPINE_SINK_INSERT_PARTIAL : SPINE_SINK_SKIP_EXISTING;
	bool		is_written = false;

	for (int which = first; which <= last && !is_written; which++)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		sink->kind->write_statement(&sql, sink, which, is_partial ? NULL : rows->left_out);
		appendStringInfoString(&sql, " RETURNING " ROW_AS_JSONB);
		is_written = run(sql.data, context, row);
	}
	return is_written;
}

static SpinePreviewAction
find_action(const SpinePreview *preview, bool is_stale)
{
	if (preview->has_new && !preview->has_old)
		return SPINE_PREVIEW_INSERT;
	if (preview->has_new)
		return DatumGetBool(DirectFunctionCall2(jsonb_eq, preview->old_row, preview->new_row)) ?
			SPINE_PREVIEW_UNCHANGED : SPINE_PREVIEW_UPDATE;
	return is_stale ? SPINE_PREVIEW_STALE : SPINE_PREVIEW_UNCHANGED;
}

/* Lets the statements find the rows by their name, until SPI_finish. */
static void
name_rows(const SpineSink *sink, const SpineStoredRows *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = SPINE_ROWS;
	relation->md.tupdesc = sink->row_type;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = 1;
	relation->reldata = tuplestore_tuple_count(rows->whole) > 0 ? rows->whole : rows->partial;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not name the row of an event");
}

static void
apply(const SpineSink *sink, const SpineEvent *event, MemoryContext context, SpinePreview *preview)
{
	SpineStoredRows rows = spine_rows_make(sink, event, 1);
	bool		is_newer;

	if (rows.nfiltered > 0)
	{
		preview->action = SPINE_PREVIEW_FILTERED;
		return;
	}
	SPI_connect();
	name_rows(sink, &rows);
	preview->has_old = find_old_row(sink, context, &preview->old_row, &is_newer);
	preview->has_new = write_row(sink, &rows, context, &preview->new_row);
	SPI_finish();
	preview->action = find_action(preview, is_newer);
	if (preview->action == SPINE_PREVIEW_UNCHANGED && sink->kind->updates_rows && !preview->has_new)
	{
		preview->has_new = true;
		preview->new_row = preview->old_row;
	}
}

void
spine_preview_apply(SpinePlan *plan, SpineSink *sink, const SpineEvent *event,
					MemoryContext context, SpinePreview *preview)
{
	MemoryContext own_context = AllocSetContextCreate(CurrentMemoryContext, "spine preview",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(own_context);
	SpineRole	saved;

	spine_trust_guard(plan->trust, own_context);
	spine_role_assume(&saved, sink->run_as);
	apply(sink, event, context, preview);
	spine_role_resume(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(own_context);
}
