/*
 * gate.c
 *		spine_gate: the functions that everybody may call, and that do what their callers
 *		could not do themselves.
 *
 * A function with its owner's rights (SECURITY DEFINER) does not learn who has called it,
 * and privileges on the catalog's tables would let everybody lock what the workers need.
 * So such a function f(...) is a gate: it calls f_as(caller, ...) with the rights of that
 * function's owner.  f_as decides what the caller may do.  It is not SECURITY DEFINER:
 * whoever gets to call it in another way, and lies about the caller, gains no rights.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "catalog/extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(spine_gate);

/* The function behind the gate. */
static Oid
find_inner(Oid gate, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(gate));
	Form_pg_proc proc;
	Oid			types[FUNC_MAX_ARGS];
	NameData	name;
	Oid			inner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", gate);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	namestrcpy(&name, psprintf("%s_as", NameStr(proc->proname)));
	types[0] = OIDOID;
	memcpy(&types[1], proc->proargtypes.values, proc->pronargs * sizeof(Oid));
	inner = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, NameGetDatum(&name),
							PointerGetDatum(buildoidvector(types, proc->pronargs + 1)),
							ObjectIdGetDatum(proc->pronamespace));
	ReleaseSysCache(tuple);

	/* another role may have made a function of this name, if ours is not there */
	if (!OidIsValid(inner) || !spine_extension_has(ProcedureRelationId, inner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("the extension spine has no function %s", NameStr(name))));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(inner));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", inner);
	*owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return inner;
}

/*
 * An error restores the user, as the (sub)transaction ends.  A set is handed on as a whole,
 * by way of resultinfo: the inner function is in PL/pgSQL.
 */
Datum
spine_gate(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(inner, FUNC_MAX_ARGS);
	FmgrInfo	function;
	Oid			owner;
	Oid			caller;
	int			security_context;
	Datum		result;

	if (PG_NARGS() + 1 > FUNC_MAX_ARGS)
		elog(ERROR, "too many arguments");
	GetUserIdAndSecContext(&caller, &security_context);
	fmgr_info(find_inner(fcinfo->flinfo->fn_oid, &owner), &function);
	InitFunctionCallInfoData(*inner, &function, PG_NARGS() + 1, PG_GET_COLLATION(),
							 fcinfo->context, fcinfo->resultinfo);
	inner->args[0].value = ObjectIdGetDatum(caller);
	inner->args[0].isnull = false;
	memcpy(&inner->args[1], fcinfo->args, PG_NARGS() * sizeof(NullableDatum));

	SetUserIdAndSecContext(owner, security_context | SECURITY_LOCAL_USERID_CHANGE);
	result = FunctionCallInvoke(inner);
	SetUserIdAndSecContext(caller, security_context);
	fcinfo->isnull = inner->isnull;
	return result;
}
