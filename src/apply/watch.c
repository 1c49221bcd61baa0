/*
 * watch.c
 *		Listens to the invalidations of PostgreSQL's caches, on behalf of plans.
 */
#include "apply/watch.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* The watches of this process. */
static dlist_head watches = DLIST_STATIC_INIT(watches);

/* A relation was altered, or (InvalidOid) any may have been. */
static void
note_relation(Datum arg, Oid relation)
{
	dlist_iter	iter;

	dlist_foreach(iter, &watches)
	{
		SpineWatch *watch = dlist_container(SpineWatch, node, iter.cur);

		if (watch->is_complete &&
			(relation == InvalidOid || list_member_oid(watch->relations, relation)))
			watch->is_stale = true;
	}
}

/* A type was altered, or (0) any may have been. */
static void
note_type(Datum arg, int cache, uint32 hash_value)
{
	dlist_iter	iter;

	dlist_foreach(iter, &watches)
	{
		SpineWatch *watch = dlist_container(SpineWatch, node, iter.cur);

		if (!watch->is_complete || hash_value == 0)
			watch->is_stale = true;
		for (int i = 0; i < watch->ntypes; i++)
		{
			if (watch->types[i] == hash_value)
				watch->is_stale = true;
		}
	}
}

static void
note_any(Datum arg, int cache, uint32 hash_value)
{
	dlist_iter	iter;

	dlist_foreach(iter, &watches)
		dlist_container(SpineWatch, node, iter.cur)->is_stale = true;
}

static void
end(void *arg)
{
	SpineWatch *watch = arg;

	dlist_delete(&watch->node);
}

static void
listen(void)
{
	static bool is_listening = false;

	if (is_listening)
		return;
	CacheRegisterRelcacheCallback(note_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, note_type, (Datum) 0);
	CacheRegisterSyscacheCallback(ENUMOID, note_any, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, note_any, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, note_any, (Datum) 0);
	is_listening = true;
}

SpineWatch *
spine_watch_begin(void)
{
	SpineWatch *watch = palloc0(sizeof(SpineWatch));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	listen();
	dlist_push_tail(&watches, &watch->node);
	*callback = (MemoryContextCallback) {.func = end, .arg = watch};
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	return watch;
}

void
spine_watch_relation(SpineWatch *watch, Oid relation)
{
	watch->relations = list_append_unique_oid(watch->relations, relation);
}

void
spine_watch_type_entry(SpineWatch *watch, uint32 hash_value)
{
	watch->types = watch->types ?
		repalloc(watch->types, (watch->ntypes + 1) * sizeof(uint32)) : palloc(sizeof(uint32));
	watch->types[watch->ntypes++] = hash_value;
}

/* The attributes of a composite type are those of a relation. */
static void
watch_attributes(SpineWatch *watch, Oid type)
{
	TupleDesc	attributes = lookup_rowtype_tupdesc_copy(type, -1);

	spine_watch_relation(watch, get_typ_typrelid(type));
	for (int i = 0; i < attributes->natts; i++)
	{
		if (!TupleDescAttr(attributes, i)->attisdropped)
			spine_watch_type(watch, TupleDescAttr(attributes, i)->atttypid);
	}
}

void
spine_watch_type(SpineWatch *watch, Oid type)
{
	Oid			below;

	Assert(IsTransactionState());
	check_stack_depth();
	for (; OidIsValid(type); type = below)
	{
		spine_watch_type_entry(watch, GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type)));
		below = get_element_type(type);
		if (get_typtype(type) == TYPTYPE_DOMAIN)
			below = getBaseType(type);
		else if (get_typtype(type) == TYPTYPE_COMPOSITE)
			watch_attributes(watch, type);
	}
}

void
spine_watch_complete(SpineWatch *watch)
{
	watch->is_complete = true;
}
