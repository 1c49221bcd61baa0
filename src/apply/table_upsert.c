/*
 * table_upsert.c
 *		Writes each row over the one that has its key, or else as a new one.
 *
 * The steps, and their order, are those of PostgreSQL's nodeModifyTable.c.  A row is completed
 * and checked as one to insert, whatever becomes of it, so that what is refused does not
 * depend on the rows that are there.  Then its key is looked up in the arbiter: the unique
 * index on the key.  A row that is not there is inserted speculatively: if another transaction
 * inserts the key at the same moment, the insertion is taken back, and the key looked up again.
 *
 * One thing is not done: the statement locks each row that it finds, and then updates it, or
 * does not.  An update waits for other writers itself.  A row that is to stay as it is needs
 * no lock: others may change it as soon as it has been looked at, as if they had come later.
 */
#include "apply/table_upsert.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "apply/newest.h"
#include "catalog/pg_am.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct SpineUpsertTarget
{
	const SpineSink *sink;
	SpineRowTarget *row;
	Oid			arbiter;
};

struct SpineTableUpsert
{
	const SpineUpsertTarget *target;
	const bool *missing;		/* by column of the sink */
	int			nset;
	int		   *set;			/* the attributes that an update sets, from 0 */
	EState	   *estate;
	ResultRelInfo *relation;
	SpineRowMaker maker;
	CommandId	command;
	TransitionCaptureState *inserts;
	TransitionCaptureState *updates;

	/* the lookup by key */
	List	   *arbiters;		/* the one */
	const IndexInfo *arbiter_info;
	IndexScanDesc scan;
	SnapshotData dirty;
	ScanKeyData keys[INDEX_MAX_KEYS];

	/* of one row */
	TupleTableSlot *proposed;
	TupleTableSlot *found;
	TupleTableSlot *changed;

	uint64		nwritten;
};

/* --------------------------------------------------------------------------
 * The target
 * -------------------------------------------------------------------------- */

static bool
is_suitable(Relation table, Relation arbiter)
{
	const TriggerDesc *triggers = table->trigdesc;

	return table->rd_rel->relkind == RELKIND_RELATION && table->rd_rel->relam == HEAP_TABLE_AM_OID &&
		arbiter->rd_rel->relam == BTREE_AM_OID &&
		!(triggers && (triggers->trig_insert_before_row || triggers->trig_update_before_row));
}

SpineUpsertTarget *
spine_upsert_target_make(const SpineSink *sink, Oid arbiter)
{
	Relation	table = table_open(sink->table, NoLock);
	Relation	index = index_open(arbiter, AccessShareLock);
	AttrNumber *columns = palloc(sink->ncolumns * sizeof(AttrNumber));
	SpineUpsertTarget *target = NULL;

	Assert(IsTransactionState());
	if (is_suitable(table, index))
	{
		for (int i = 0; i < sink->ncolumns; i++)
			columns[i] = sink->columns[i].number;
		target = palloc(sizeof(SpineUpsertTarget));
		target->sink = sink;
		target->row = spine_row_target_make(sink->table, columns, sink->ncolumns);
		target->arbiter = arbiter;
	}
	pfree(columns);
	index_close(index, AccessShareLock);
	table_close(table, NoLock);
	return target;
}

/* --------------------------------------------------------------------------
 * Begin
 * -------------------------------------------------------------------------- */

static void
find_set(SpineTableUpsert *upsert, const bool *left_out)
{
	const SpineSink *sink = upsert->target->sink;

	upsert->set = palloc(sink->ncolumns * sizeof(int));
	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (spine_sink_sets(sink, i, left_out))
			upsert->set[upsert->nset++] = sink->columns[i].number - 1;
	}
}

static Bitmapset *
add_column(Bitmapset *attributes, const SpineSink *sink, int column)
{
	return bms_add_member(attributes, sink->columns[column].number - FirstLowInvalidHeapAttributeNumber);
}

/*
 * The rights that the statement needs: it reads the key, what it proposes to set, and the
 * version.
 */
static void
open_table(SpineTableUpsert *upsert, const bool *left_out)
{
	const SpineSink *sink = upsert->target->sink;
	Bitmapset  *inserted = NULL;
	Bitmapset  *updated = NULL;
	Bitmapset  *selected = NULL;

	for (int i = 0; i < sink->ncolumns; i++)
	{
		if (!upsert->missing[i])
			inserted = add_column(inserted, sink, i);
		if (spine_sink_sets(sink, i, left_out))
			updated = add_column(updated, sink, i);
		if (spine_sink_is_key(sink, i) || (i == sink->version && upsert->nset > 0))
			selected = add_column(selected, sink, i);
	}
	spine_row_target_open(upsert->target->row, upsert->estate,
						  &(SpineRights) {
							  .inserted = inserted,
							  .updated = updated,
							  .selected = bms_union(selected, updated)
						  });
	upsert->relation = makeNode(ResultRelInfo);
	ExecInitResultRelation(upsert->estate, upsert->relation, 1);
	if (upsert->nset > 0)
		CheckCmdReplicaIdentity(upsert->relation->ri_RelationDesc, CMD_UPDATE);
	ExecOpenIndices(upsert->relation, true);
}

static Relation
find_arbiter(SpineTableUpsert *upsert)
{
	const ResultRelInfo *relation = upsert->relation;

	for (int i = 0; i < relation->ri_NumIndices; i++)
	{
		if (RelationGetRelid(relation->ri_IndexRelationDescs[i]) != upsert->target->arbiter)
			continue;
		upsert->arbiter_info = relation->ri_IndexRelationInfo[i];
		return relation->ri_IndexRelationDescs[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
			 errmsg("the unique index on the key of table %s is not there any more",
					upsert->target->sink->table_name)));
}

static void
begin_lookup(SpineTableUpsert *upsert)
{
	Relation	index = find_arbiter(upsert);

	upsert->arbiters = list_make1_oid(upsert->target->arbiter);
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		ScanKeyEntryInitialize(&upsert->keys[i], 0, i + 1, upsert->arbiter_info->ii_UniqueStrats[i],
							   InvalidOid, index->rd_indcollation[i],
							   upsert->arbiter_info->ii_UniqueProcs[i], (Datum) 0);
	InitDirtySnapshot(upsert->dirty);
	upsert->scan = spine_begin_index_scan(upsert->relation->ri_RelationDesc, index, &upsert->dirty,
										  index->rd_index->indnkeyatts);
}

static void
begin(SpineTableUpsert *upsert, const bool *left_out)
{
	const SpineUpsertTarget *target = upsert->target;
	EState	   *estate = upsert->estate;
	Relation	table;

	upsert->missing = left_out ? left_out : palloc0(target->sink->ncolumns * sizeof(bool));
	find_set(upsert, left_out);
	open_table(upsert, left_out);
	table = upsert->relation->ri_RelationDesc;
	upsert->maker = spine_row_maker(target->row, estate);
	upsert->proposed = table_slot_create(table, &estate->es_tupleTable);
	upsert->found = table_slot_create(table, &estate->es_tupleTable);
	upsert->changed = table_slot_create(table, &estate->es_tupleTable);

	AfterTriggerBeginQuery();
	upsert->inserts = MakeTransitionCaptureState(table->trigdesc, target->sink->table, CMD_INSERT);
	if (upsert->nset > 0)
		upsert->updates = MakeTransitionCaptureState(table->trigdesc, target->sink->table, CMD_UPDATE);
	ExecBSInsertTriggers(estate, upsert->relation);
	if (upsert->nset > 0)
		ExecBSUpdateTriggers(estate, upsert->relation);
	begin_lookup(upsert);
}

SpineTableUpsert *
spine_table_upsert_begin(const SpineUpsertTarget *target, const bool *left_out)
{
	SpineTableUpsert *upsert = palloc0(sizeof(SpineTableUpsert));
	MemoryContext old_context;

	Assert(IsTransactionState() && !IsolationUsesXactSnapshot());
	PreventCommandIfReadOnly("INSERT");
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	upsert->target = target;
	upsert->command = GetCurrentCommandId(true);
	upsert->estate = CreateExecutorState();
	upsert->estate->es_snapshot = GetActiveSnapshot();
	upsert->estate->es_output_cid = upsert->command;
	old_context = MemoryContextSwitchTo(upsert->estate->es_query_cxt);
	begin(upsert, left_out);
	MemoryContextSwitchTo(old_context);
	return upsert;
}

/* --------------------------------------------------------------------------
 * A row
 * -------------------------------------------------------------------------- */

/* Completes the row, and raises an error if the table does not take it. */
static void
check_row(SpineTableUpsert *upsert, TupleTableSlot *slot, CmdType command)
{
	Relation	table = upsert->relation->ri_RelationDesc;
	const TupleConstr *constraints = RelationGetDescr(table)->constr;

	if (constraints && constraints->has_generated_stored)
		ExecComputeStoredGenerated(upsert->relation, upsert->estate, slot, command);
	if (constraints)
		ExecConstraints(upsert->relation, slot, upsert->estate);
	if (table->rd_rel->relispartition)
		ExecPartitionCheck(upsert->relation, slot, upsert->estate, true);
}

static void
set_keys(SpineTableUpsert *upsert)
{
	slot_getallattrs(upsert->proposed);
	for (int i = 0; i < upsert->arbiter_info->ii_NumIndexKeyAttrs; i++)
	{
		int			attribute = upsert->arbiter_info->ii_IndexAttrNumbers[i] - 1;

		Assert(!upsert->proposed->tts_isnull[attribute]);
		upsert->keys[i].sk_argument = upsert->proposed->tts_values[attribute];
	}
}

static void
rescan(SpineTableUpsert *upsert)
{
	index_rescan(upsert->scan, upsert->keys, upsert->scan->numberOfKeys, NULL, 0);
}

static void
wait_for_writer(SpineTableUpsert *upsert, TransactionId writer)
{
	ItemPointerData place = upsert->found->tts_tid;
	uint32		token = upsert->dirty.speculativeToken;

	/* a pin meanwhile could hold up VACUUM */
	ExecClearTuple(upsert->found);
	if (token)
		SpeculativeInsertionWait(writer, token);
	else
		XactLockTableWait(writer, upsert->relation->ri_RelationDesc, &place, XLTW_InsertIndex);
}

/*
 * Finds the row that has the key, when no other transaction is about to write it.  False: there
 * is none.  The page of the table stays pinned, but not that of the index.
 */
static bool
find(SpineTableUpsert *upsert)
{
	for (;;)
	{
		TransactionId writer;

		CHECK_FOR_INTERRUPTS();
		ExecClearTuple(upsert->found);
		rescan(upsert);
		if (!index_getnext_slot(upsert->scan, ForwardScanDirection, upsert->found))
			return false;
		rescan(upsert);
		writer = TransactionIdIsValid(upsert->dirty.xmin) ? upsert->dirty.xmin : upsert->dirty.xmax;
		if (!TransactionIdIsValid(writer))
			return true;
		wait_for_writer(upsert, writer);
	}
}

/* The statement refuses a row that code which it runs itself has written. */
static void
refuse_own_row(const SpineTableUpsert *upsert)
{
	bool		isnull;
	Datum		writer = slot_getsysattr(upsert->found, MinTransactionIdAttributeNumber, &isnull);
	bool		is_copy;
	HeapTuple	tuple;

	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(writer)))
		return;
	tuple = ExecFetchSlotHeapTuple(upsert->found, false, &is_copy);
	if (HeapTupleHeaderGetCmin(tuple->t_data) >= upsert->command)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("ON CONFLICT DO UPDATE command cannot affect row a second time")));
}

/* By image, since 1.0 and 1.00 are two values. */
static bool
would_change(const SpineTableUpsert *upsert)
{
	const TupleTableSlot *found = upsert->found;
	const TupleTableSlot *proposed = upsert->proposed;

	for (int i = 0; i < upsert->nset; i++)
	{
		int			attribute = upsert->set[i];
		const FormData_pg_attribute *form = TupleDescAttr(found->tts_tupleDescriptor, attribute);

		if (found->tts_isnull[attribute] != proposed->tts_isnull[attribute])
			return true;
		if (!found->tts_isnull[attribute] &&
			!datum_image_eq(found->tts_values[attribute], proposed->tts_values[attribute],
							form->attbyval, form->attlen))
			return true;
	}
	return false;
}

/* As the condition of the statement (sink_upsert.c) does. */
static bool
is_to_be_updated(const SpineTableUpsert *upsert)
{
	const SpineSink *sink = upsert->target->sink;

	if (upsert->nset == 0)
		return false;
	if (sink->version >= 0)
	{
		const SpineColumn *column = &sink->columns[sink->version];
		int			attribute = column->number - 1;
		int64		old_version;
		int64		new_version;

		if (upsert->found->tts_isnull[attribute])
			return true;
		old_version = spine_version_integer(column, upsert->found->tts_values[attribute]);
		new_version = spine_version_integer(column, upsert->proposed->tts_values[attribute]);
		if (old_version != new_version)
			return new_version > old_version;
	}
	return would_change(upsert);
}

/* The row that is there, with what the new one sets. */
static void
make_changed(SpineTableUpsert *upsert)
{
	TupleTableSlot *changed = upsert->changed;
	TupleDesc	columns = changed->tts_tupleDescriptor;

	ExecClearTuple(changed);
	for (int i = 0; i < columns->natts; i++)
	{
		bool		is_dropped = TupleDescAttr(columns, i)->attisdropped;

		changed->tts_values[i] = is_dropped ? (Datum) 0 : upsert->found->tts_values[i];
		changed->tts_isnull[i] = is_dropped || upsert->found->tts_isnull[i];
	}
	for (int i = 0; i < upsert->nset; i++)
	{
		changed->tts_values[upsert->set[i]] = upsert->proposed->tts_values[upsert->set[i]];
		changed->tts_isnull[upsert->set[i]] = upsert->proposed->tts_isnull[upsert->set[i]];
	}
	ExecStoreVirtualTuple(changed);
	changed->tts_tableOid = upsert->target->sink->table;
	check_row(upsert, changed, CMD_UPDATE);
}

/* False: another transaction has changed the row since it was found. */
static bool
write_changed(SpineTableUpsert *upsert, SpineUpdatedIndexes *indexes)
{
	TM_FailureData failure;
	LockTupleMode lock_mode;
	TM_Result	result;

	/* may leave memory behind */
	MemoryContext old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(upsert->estate));

	result = table_tuple_update(upsert->relation->ri_RelationDesc, &upsert->found->tts_tid, upsert->changed,
								upsert->command, upsert->estate->es_snapshot, InvalidSnapshot, true,
								&failure, &lock_mode, indexes);
	MemoryContextSwitchTo(old_context);
	if (result == TM_SelfModified)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("tuple to be updated was already modified by an operation triggered by the current command")));
	return result == TM_Ok;
}

static bool
update(SpineTableUpsert *upsert)
{
	SpineUpdatedIndexes indexes;
	List	   *recheck = NIL;

	make_changed(upsert);
	if (!write_changed(upsert, &indexes))
		return false;
	if (spine_any_index_updated(indexes))
		recheck = spine_update_index_entries(upsert->relation, upsert->changed, upsert->estate, true, indexes);
	ExecARUpdateTriggers(upsert->estate, upsert->relation, NULL, NULL, &upsert->found->tts_tid, NULL,
						 upsert->changed, recheck, upsert->updates, false);
	list_free(recheck);
	upsert->nwritten++;
	return true;
}

/* False: another transaction has inserted the key since it was looked up. */
static bool
insert(SpineTableUpsert *upsert)
{
	Relation	table = upsert->relation->ri_RelationDesc;
	uint32		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	bool		conflict = false;
	List	   *recheck;
	MemoryContext old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(upsert->estate));

	table_tuple_insert_speculative(table, upsert->proposed, upsert->command, 0, NULL, token);
	MemoryContextSwitchTo(old_context);
	recheck = spine_insert_speculative_entries(upsert->relation, upsert->proposed, upsert->estate,
											   &conflict, upsert->arbiters);
	table_tuple_complete_speculative(table, upsert->proposed, token, !conflict);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	if (!conflict)
	{
		ExecARInsertTriggers(upsert->estate, upsert->relation, upsert->proposed, recheck, upsert->inserts);
		upsert->nwritten++;
	}
	list_free(recheck);
	return !conflict;
}

/* False: another transaction was quicker. */
static bool
write_row(SpineTableUpsert *upsert)
{
	set_keys(upsert);
	if (!find(upsert))
		return insert(upsert);
	slot_getallattrs(upsert->found);
	if (upsert->nset > 0)
		refuse_own_row(upsert);
	return !is_to_be_updated(upsert) || update(upsert);
}

void
spine_table_upsert_add(SpineTableUpsert *upsert, const Datum *values, const bool *nulls)
{
	/* the executor keeps things in the current context, such as functions of triggers */
	MemoryContext old_context = MemoryContextSwitchTo(upsert->estate->es_query_cxt);

	ResetPerTupleExprContext(upsert->estate);
	spine_row_make(&upsert->maker, upsert->proposed, values, nulls, upsert->missing);
	check_row(upsert, upsert->proposed, CMD_INSERT);
	while (!write_row(upsert))
		CHECK_FOR_INTERRUPTS();
	ExecClearTuple(upsert->proposed);
	MemoryContextSwitchTo(old_context);
}

uint64
spine_table_upsert_end(SpineTableUpsert *upsert)
{
	EState	   *estate = upsert->estate;
	MemoryContext old_context = MemoryContextSwitchTo(estate->es_query_cxt);
	uint64		nwritten = upsert->nwritten;

	ExecClearTuple(upsert->found);
	index_endscan(upsert->scan);
	if (upsert->nset > 0)
		ExecASUpdateTriggers(estate, upsert->relation, upsert->updates);
	ExecASInsertTriggers(estate, upsert->relation, upsert->inserts);
	AfterTriggerEndQuery(estate);

	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseResultRelations(estate);
	ExecCloseRangeTableRelations(estate);
	MemoryContextSwitchTo(old_context);
	FreeExecutorState(estate);
	PopActiveSnapshot();
	CommandCounterIncrement();
	pfree(upsert);
	return nwritten;
}
