/*
 * position_row.c
 *		Moves rows of spine_offsets without a statement.
 *
 * Every batch begins with this, and in a small batch an UPDATE would be a good part of the
 * work.  It would do nothing else: the table has no triggers but the extension's own, which
 * a worker's moves do not fire, and its checks hold for all offsets that a log has.
 */
#include "process/position_row.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* The columns of the table. */
enum
{
	PIPELINE,
	TOPIC,
	PARTITION,
	NEXT_OFFSET,
	CLUSTER_ID,
	UPDATED_AT,
	WORKER_NEXT_OFFSET,
	MARK_OFFSET,
	MARK_CRC,
	NCOLUMNS
};

static const struct
{
	const char *name;
	Oid			type;
}			columns[NCOLUMNS] = {
	[PIPELINE] = {"pipeline", NAMEOID},
	[TOPIC] = {"topic", TEXTOID},
	[PARTITION] = {"partition", INT4OID},
	[NEXT_OFFSET] = {"next_offset", INT8OID},
	[CLUSTER_ID] = {"cluster_id", TEXTOID},
	[UPDATED_AT] = {"updated_at", TIMESTAMPTZOID},
	[WORKER_NEXT_OFFSET] = {"worker_next_offset", INT8OID},
	[MARK_OFFSET] = {"mark_offset", INT8OID},
	[MARK_CRC] = {"mark_crc", INT8OID},
};

struct SpinePositionTable
{
	Relation	relation;
	TupleTableSlot *found;
	TupleTableSlot *moved;
};

/* Nobody has added a column or a check. */
static bool
is_as_made(TupleDesc type)
{
	if (type->natts != NCOLUMNS || (type->constr && type->constr->num_check > 3))
		return false;
	for (int i = 0; i < NCOLUMNS; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(type, i);

		if (attribute->atttypid != columns[i].type || strcmp(NameStr(attribute->attname), columns[i].name) != 0)
			return false;
	}
	return true;
}

SpinePositionTable *
spine_position_table_open(const SpineLog *log)
{
	char	   *name = psprintf("%s.spine_offsets", log->schema);
	Datum		oid = DirectFunctionCall1(regclassin, CStringGetDatum(name));
	Relation	relation = table_open(DatumGetObjectId(oid), RowExclusiveLock);
	SpinePositionTable *table;

	Assert(IsTransactionState());
	if (!is_as_made(RelationGetDescr(relation)))
	{
		table_close(relation, NoLock);
		return NULL;
	}
	PreventCommandIfReadOnly("UPDATE");
	CheckCmdReplicaIdentity(relation, CMD_UPDATE);
	table = palloc(sizeof(SpinePositionTable));
	table->relation = relation;
	table->found = table_slot_create(relation, NULL);
	table->moved = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsVirtual);

	/* sees what this transaction has moved, and what others have until now */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	return table;
}

void
spine_position_table_close(SpinePositionTable *table)
{
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(table->found);
	ExecDropSingleTupleTableSlot(table->moved);
	table_close(table->relation, NoLock);
	CommandCounterIncrement();
	pfree(table);
}

static bool
is_text(Datum datum, const char *text)
{
	struct varlena *value = PG_DETOAST_DATUM_PACKED(datum);

	return VARSIZE_ANY_EXHDR(value) == strlen(text) && memcmp(VARDATA_ANY(value), text, strlen(text)) == 0;
}

static bool
is_row_of(const TupleTableSlot *row, const SpineLog *log, const SpineMove *move)
{
	return strcmp(NameStr(*DatumGetName(row->tts_values[PIPELINE])), NameStr(log->pipeline)) == 0 &&
		is_text(row->tts_values[TOPIC], move->topic) &&
		DatumGetInt32(row->tts_values[PARTITION]) == move->partition &&
		is_text(row->tts_values[CLUSTER_ID], log->cluster_id);
}

static void
make_moved(TupleTableSlot *moved, const TupleTableSlot *found, const SpineMove *move)
{
	ExecClearTuple(moved);
	memcpy(moved->tts_values, found->tts_values, NCOLUMNS * sizeof(Datum));
	memset(moved->tts_isnull, 0, NCOLUMNS * sizeof(bool));
	moved->tts_values[NEXT_OFFSET] = moved->tts_values[WORKER_NEXT_OFFSET] = Int64GetDatum(move->to);
	moved->tts_values[UPDATED_AT] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	moved->tts_values[MARK_OFFSET] = Int64GetDatum(move->mark_offset);
	moved->tts_isnull[MARK_OFFSET] = move->mark_offset == -1;
	moved->tts_values[MARK_CRC] = Int64GetDatum(move->mark_crc);
	ExecStoreVirtualTuple(moved);
}

/* The row did not fit into its page. */
static void
insert_index_entries(SpinePositionTable *table, SpineUpdatedIndexes indexes)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);

	/* there is no range table, where the executor would look for the updated columns */
	InitResultRelInfo(result, table->relation, 0, NULL, 0);
	ExecOpenIndices(result, false);
	if (result->ri_NumIndices > 0)
		(void) spine_update_index_entries(result, table->moved, estate, false, indexes);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
}

bool
spine_position_row_move(SpinePositionTable *table, const SpineLog *log, const SpineMove *move,
						ItemPointer place)
{
	TM_FailureData failure;
	LockTupleMode lock_mode;
	SpineUpdatedIndexes indexes;

	/* the table may have become smaller */
	if (ItemPointerGetBlockNumber(place) >= RelationGetNumberOfBlocks(table->relation) ||
		!table_tuple_fetch_row_version(table->relation, place, GetActiveSnapshot(), table->found))
		return false;
	slot_getallattrs(table->found);
	if (!is_row_of(table->found, log, move) ||
		DatumGetInt64(table->found->tts_values[NEXT_OFFSET]) != move->from)
		return false;

	make_moved(table->moved, table->found, move);
	if (table_tuple_update(table->relation, place, table->moved, GetCurrentCommandId(true),
						   GetActiveSnapshot(), InvalidSnapshot, true,
						   &failure, &lock_mode, &indexes) != TM_Ok)
		return false;			/* somebody else has, since it was found */
	if (spine_any_index_updated(indexes))
		insert_index_entries(table, indexes);
	*place = table->moved->tts_tid;
	return true;
}
