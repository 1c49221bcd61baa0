/*
 * lookup.c
 *		Makes the planner believe that tables are large.
 *
 * The plan of a sink's statement is kept while its table grows.  For a table of a few rows a
 * scan is as good as an index, and a plan made then would later scan a large table for each
 * row of a batch.  So while such a statement is planned, every table has many rows, and
 * nothing is known of its values.
 */
#include "apply/lookup.h"

#include "optimizer/plancat.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/selfuncs.h"

#define MANY_TUPLES		1e7
#define MANY_PAGES		100000
#define TREE_HEIGHT		2

static bool is_planning = false;
static get_relation_info_hook_type prev_relation_info_hook = NULL;
static get_relation_stats_hook_type prev_relation_stats_hook = NULL;

static void
enlarge_relation(PlannerInfo *root, Oid relation, bool is_parent, RelOptInfo *info)
{
	ListCell   *cell;

	if (prev_relation_info_hook)
		prev_relation_info_hook(root, relation, is_parent, info);
	if (!is_planning)
		return;
	info->pages = MANY_PAGES;
	info->tuples = MANY_TUPLES;
	foreach(cell, info->indexlist)
	{
		IndexOptInfo *index = lfirst_node(IndexOptInfo, cell);

		index->pages = MANY_PAGES;
		index->tuples = MANY_TUPLES;
		index->tree_height = TREE_HEIGHT;
	}
}

static bool
hide_statistics(PlannerInfo *root, RangeTblEntry *entry, AttrNumber column, VariableStatData *data)
{
	if (is_planning)
	{
		data->statsTuple = NULL;
		return true;
	}
	return prev_relation_stats_hook && prev_relation_stats_hook(root, entry, column, data);
}

static void
end_planning(void *arg)
{
	is_planning = false;
}

/* Once in a process that plans such statements. */
static void
set_hooks(void)
{
	static bool are_set = false;

	if (are_set)
		return;
	are_set = true;
	prev_relation_info_hook = get_relation_info_hook;
	get_relation_info_hook = enlarge_relation;
	prev_relation_stats_hook = get_relation_stats_hook;
	get_relation_stats_hook = hide_statistics;
}

void
spine_lookup_plan(SPIPlanPtr plan)
{
	/* its end, also by an error, is the end of planning */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "spine lookup",
												  ALLOCSET_SMALL_SIZES);
	MemoryContextCallback *callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));
	CachedPlan *cached;

	set_hooks();
	*callback = (MemoryContextCallback) {.func = end_planning};
	MemoryContextRegisterResetCallback(context, callback);
	is_planning = true;
	cached = SPI_plan_get_cached_plan(plan);
	MemoryContextDelete(context);
	if (cached)
		ReleaseCachedPlan(cached, CurrentResourceOwner);
}
