/*
 * compare.c
 *		Looks up how the values of a column are compared.
 */
#include "apply/compare.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_operator.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static TypeCacheEntry *
look_up(const SpineColumn *column)
{
	TypeCacheEntry *type = lookup_type_cache(column->base_type,
											 TYPECACHE_CMP_PROC_FINFO | TYPECACHE_BTREE_OPFAMILY);

	Assert(IsTransactionState());
	if (!OidIsValid(type->cmp_proc_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s column \"%s\" is of type %s, whose values have no order",
						column->needed_as, column->name, format_type_be(column->base_type)),
				 errhint("Change \"key\" or \"version\" in spine_sinks.")));
	return type;
}

FmgrInfo *
spine_compare_function(const SpineColumn *column)
{
	return &look_up(column)->cmp_proc_finfo;
}

char *
spine_compare_operator(const SpineColumn *column, StrategyNumber strategy)
{
	TypeCacheEntry *type = look_up(column);
	Oid			operator = get_opfamily_member(type->btree_opf, type->btree_opintype,
											   type->btree_opintype, strategy);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *sql;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	sql = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
				   NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return sql;
}
