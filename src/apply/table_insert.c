/*
 * table_insert.c
 *		Writes rows into a table, some pages of them at a time.
 *
 * The steps, and their order, are those of PostgreSQL's copyfrom.c.  A row is routed to its
 * partition, completed, checked, and kept in a buffer of its partition until there are enough
 * rows.  Where code of the table's owner could look at the table between two rows (BEFORE
 * triggers, volatile defaults), each row is written before the next one is made.
 */
#include "apply/table_insert.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "foreign/fdwapi.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Rows are written when there are so many of them, or so many bytes; as in COPY. */
#define MAX_ROWS			1000
#define MAX_BYTES			65536

/* With more partitions than this, their buffers are freed when they are empty. */
#define MAX_BUFFERS			32

/*
 * The rows of a table or partition that are not yet written.  ResultRelInfo has a place for
 * it, which whoever collects rows may define.
 */
typedef struct CopyMultiInsertBuffer
{
	ResultRelInfo *relation;
	int			nrows;
	TupleTableSlot *slots[MAX_ROWS];	/* NULL: not yet made, and the same from there on */
} RowBuffer;

struct SpineTableInsert
{
	const SpineRowTarget *target;
	EState	   *estate;
	ModifyTableState *state;	/* for routing, which expects one */
	ResultRelInfo *root;
	PartitionTupleRouting *routing; /* NULL: the table is not partitioned */
	TupleTableSlot *root_slot;	/* for a row that is not yet routed */
	ResultRelInfo *partition;	/* of the last row */
	SpineRowMaker maker;
	CommandId	command;
	bool		one_by_one;
	List	   *buffers;
	int			nrows;			/* in all buffers */
	size_t		nbytes;
};

/* --------------------------------------------------------------------------
 * Buffers
 * -------------------------------------------------------------------------- */

static RowBuffer *
buffer_of(SpineTableInsert *insert, ResultRelInfo *relation)
{
	RowBuffer  *buffer = relation->ri_CopyMultiInsertBuffer;

	if (buffer == NULL)
	{
		buffer = MemoryContextAllocZero(insert->estate->es_query_cxt, sizeof(RowBuffer));
		buffer->relation = relation;
		relation->ri_CopyMultiInsertBuffer = buffer;
		insert->buffers = lappend(insert->buffers, buffer);
	}
	return buffer;
}

static TupleTableSlot *
free_slot(RowBuffer *buffer)
{
	TupleTableSlot **slot = &buffer->slots[buffer->nrows];

	if (*slot == NULL)
		*slot = table_slot_create(buffer->relation->ri_RelationDesc, NULL);
	return *slot;
}

static void
free_buffers(SpineTableInsert *insert)
{
	ListCell   *cell;

	foreach(cell, insert->buffers)
	{
		RowBuffer  *buffer = lfirst(cell);

		for (int i = 0; i < MAX_ROWS && buffer->slots[i]; i++)
			ExecDropSingleTupleTableSlot(buffer->slots[i]);
		if (buffer->relation->ri_FdwRoutine == NULL)
			table_finish_bulk_insert(buffer->relation->ri_RelationDesc, 0);
		buffer->relation->ri_CopyMultiInsertBuffer = NULL;
		pfree(buffer);
	}
	list_free(insert->buffers);
	insert->buffers = NIL;
}

/* A row is in its table: the indexes, and the triggers for later. */
static void
complete_row(SpineTableInsert *insert, ResultRelInfo *relation, TupleTableSlot *slot)
{
	List	   *recheck = NIL;

	if (relation->ri_NumIndices > 0)
		recheck = spine_insert_index_entries(relation, slot, insert->estate);
	ExecARInsertTriggers(insert->estate, relation, slot, recheck, insert->state->mt_transition_capture);
	list_free(recheck);
}

static void
write_table_rows(SpineTableInsert *insert, RowBuffer *buffer)
{
	/* may leave memory behind */
	MemoryContext old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(insert->estate));

	table_multi_insert(buffer->relation->ri_RelationDesc, buffer->slots, buffer->nrows,
					   insert->command, 0, NULL);
	MemoryContextSwitchTo(old_context);
	for (int i = 0; i < buffer->nrows; i++)
		complete_row(insert, buffer->relation, buffer->slots[i]);
}

/* Into a foreign partition, as many rows at a time as its wrapper takes. */
static void
write_foreign_rows(SpineTableInsert *insert, RowBuffer *buffer)
{
	ResultRelInfo *relation = buffer->relation;
	const FdwRoutine *routine = relation->ri_FdwRoutine;
	int			nrows;

	for (int first = 0; first < buffer->nrows; first += nrows)
	{
		TupleTableSlot **slots = &buffer->slots[first];
		TupleTableSlot *slot;
		int			nwritten;

		nrows = nwritten = Min(Max(relation->ri_BatchSize, 1), buffer->nrows - first);
		if (nrows > 1)
			slots = routine->ExecForeignBatchInsert(insert->estate, relation, slots, slots, &nwritten);
		else
		{
			slot = routine->ExecForeignInsert(insert->estate, relation, slots[0], slots[0]);
			slots = &slot;
			nwritten = slot != NULL;
		}
		for (int i = 0; i < nwritten; i++)
		{
			slots[i]->tts_tableOid = RelationGetRelid(relation->ri_RelationDesc);
			complete_row(insert, relation, slots[i]);
		}
	}
}

static void
write_rows(SpineTableInsert *insert)
{
	ListCell   *cell;

	foreach(cell, insert->buffers)
	{
		RowBuffer  *buffer = lfirst(cell);

		if (buffer->nrows == 0)
			continue;
		if (buffer->relation->ri_FdwRoutine)
			write_foreign_rows(insert, buffer);
		else
			write_table_rows(insert, buffer);
		for (int i = 0; i < buffer->nrows; i++)
			ExecClearTuple(buffer->slots[i]);
		buffer->nrows = 0;
	}
	insert->nrows = 0;
	insert->nbytes = 0;
	if (list_length(insert->buffers) > MAX_BUFFERS)
		free_buffers(insert);
}

/* --------------------------------------------------------------------------
 * The insert
 * -------------------------------------------------------------------------- */

static ModifyTableState *
make_state(EState *estate, ResultRelInfo *root)
{
	ModifyTableState *state = makeNode(ModifyTableState);

	state->ps.state = estate;
	state->operation = CMD_INSERT;
	state->mt_nrels = 1;
	state->resultRelInfo = root;
	state->rootResultRelInfo = root;
	return state;
}

static bool
has_before_row_trigger(const ResultRelInfo *relation)
{
	return relation->ri_TrigDesc && relation->ri_TrigDesc->trig_insert_before_row;
}

static void
begin(SpineTableInsert *insert)
{
	const SpineRowTarget *target = insert->target;
	EState	   *estate = insert->estate;
	Relation	relation;

	spine_row_target_open(target, estate, &(SpineRights) {.inserted = target->written});
	insert->root = makeNode(ResultRelInfo);
	ExecInitResultRelation(estate, insert->root, 1);
	ExecOpenIndices(insert->root, false);
	relation = insert->root->ri_RelationDesc;
	insert->state = make_state(estate, insert->root);
	insert->maker = spine_row_maker(target, estate);

	AfterTriggerBeginQuery();
	insert->state->mt_transition_capture =
		MakeTransitionCaptureState(relation->trigdesc, target->table, CMD_INSERT);
	insert->one_by_one = target->may_look_at_table || has_before_row_trigger(insert->root);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		insert->routing = ExecSetupPartitionTupleRouting(estate, relation);
		insert->root_slot = table_slot_create(relation, &estate->es_tupleTable);
	}
	ExecBSInsertTriggers(estate, insert->root);
}

SpineTableInsert *
spine_table_insert_begin(const SpineRowTarget *target)
{
	SpineTableInsert *insert = palloc0(sizeof(SpineTableInsert));
	MemoryContext old_context;

	Assert(IsTransactionState());
	PreventCommandIfReadOnly("INSERT");
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	insert->target = target;
	insert->command = GetCurrentCommandId(true);
	insert->estate = CreateExecutorState();
	old_context = MemoryContextSwitchTo(insert->estate->es_query_cxt);
	begin(insert);
	MemoryContextSwitchTo(old_context);
	return insert;
}

/* Does each row run code of the table's owner?  (Those of foreign keys are internal.) */
static bool
has_row_triggers(const ResultRelInfo *relation)
{
	const TriggerDesc *triggers = relation->ri_TrigDesc;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_INSERT(trigger->tgtype))
			return true;
	}
	return false;
}

static ResultRelInfo *
find_partition(SpineTableInsert *insert)
{
	ResultRelInfo *partition = ExecFindPartition(insert->state, insert->root, insert->routing,
												 insert->root_slot, insert->estate);

	/* triggers see the rows of all partitions in the order in which they came */
	if (partition != insert->partition && insert->nrows > 0 && has_row_triggers(partition))
		write_rows(insert);
	insert->partition = partition;
	return partition;
}

/* Copies the row of the root's slot to a slot of its partition. */
static TupleTableSlot *
route(SpineTableInsert *insert, ResultRelInfo *partition)
{
	TupleTableSlot *slot = free_slot(buffer_of(insert, partition));
	TupleConversionMap *map = spine_partition_map(partition, insert->estate);

	if (map)
		slot = execute_attr_map_slot(map->attrMap, insert->root_slot, slot);
	else
		ExecCopySlot(slot, insert->root_slot);
	slot->tts_tableOid = RelationGetRelid(partition->ri_RelationDesc);
	return slot;
}

/* Completes the row, and raises an error if the table does not take it. */
static void
check_row(SpineTableInsert *insert, ResultRelInfo *relation, TupleTableSlot *slot)
{
	const TupleConstr *constraints = relation->ri_RelationDesc->rd_att->constr;

	if (constraints && constraints->has_generated_stored)
		ExecComputeStoredGenerated(relation, insert->estate, slot, CMD_INSERT);
	if (constraints && relation->ri_FdwRoutine == NULL)
		ExecConstraints(relation, slot, insert->estate);

	/* routing has checked the others */
	if (relation->ri_RelationDesc->rd_rel->relispartition &&
		(insert->routing == NULL || has_before_row_trigger(relation)))
		ExecPartitionCheck(relation, slot, insert->estate, true);
}

/* The row is kept: nothing in it may depend on the caller's memory. */
static void
keep_row(SpineTableInsert *insert, RowBuffer *buffer, TupleTableSlot *slot)
{
	HeapTuple	tuple;
	bool		is_copy;

	ExecMaterializeSlot(slot);
	tuple = ExecFetchSlotHeapTuple(slot, false, &is_copy);
	insert->nbytes += tuple->t_len;
	if (is_copy)
		heap_freetuple(tuple);
	buffer->nrows++;
	insert->nrows++;
}

static void
add(SpineTableInsert *insert, const Datum *values, const bool *nulls, const bool *missing)
{
	ResultRelInfo *relation = insert->root;
	TupleTableSlot *slot = insert->routing ? insert->root_slot : free_slot(buffer_of(insert, relation));
	bool		before_trigger;

	spine_row_make(&insert->maker, slot, values, nulls, missing);
	if (insert->routing)
	{
		relation = find_partition(insert);
		slot = route(insert, relation);
	}

	before_trigger = has_before_row_trigger(relation);
	if (before_trigger && !ExecBRInsertTriggers(insert->estate, relation, slot))
		return;					/* the trigger wants no row */
	check_row(insert, relation, slot);
	keep_row(insert, buffer_of(insert, relation), slot);
	if (insert->one_by_one || before_trigger || insert->nrows == MAX_ROWS || insert->nbytes >= MAX_BYTES)
		write_rows(insert);
}

void
spine_table_insert_add(SpineTableInsert *insert, const Datum *values, const bool *nulls,
					   const bool *missing)
{
	/* the executor keeps things in the current context, such as functions of triggers */
	MemoryContext old_context = MemoryContextSwitchTo(insert->estate->es_query_cxt);

	CHECK_FOR_INTERRUPTS();
	ResetPerTupleExprContext(insert->estate);
	add(insert, values, nulls, missing);
	MemoryContextSwitchTo(old_context);
}

void
spine_table_insert_end(SpineTableInsert *insert)
{
	EState	   *estate = insert->estate;
	MemoryContext old_context = MemoryContextSwitchTo(estate->es_query_cxt);

	write_rows(insert);
	ExecASInsertTriggers(estate, insert->root, insert->state->mt_transition_capture);
	AfterTriggerEndQuery(estate);

	free_buffers(insert);
	ExecResetTupleTable(estate->es_tupleTable, false);
	if (insert->routing)
		ExecCleanupTupleRouting(insert->state, insert->routing);
	ExecCloseResultRelations(estate);
	ExecCloseRangeTableRelations(estate);
	MemoryContextSwitchTo(old_context);
	FreeExecutorState(estate);
	PopActiveSnapshot();
	CommandCounterIncrement();
	pfree(insert);
}
