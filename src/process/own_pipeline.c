/*
 * own_pipeline.c
 *		Loads a pipeline for those who may change it: they may also see what it does.
 */
#include "process/own_pipeline.h"

#include "apply/role.h"
#include "catalog/extension.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

static void
check_member(const char *schema, const SpinePipeline *pipeline, const char *to_do)
{
	Oid			types[] = {REGROLEOID, OIDOID, REGROLEOID};
	Datum		args[] = {ObjectIdGetDatum(pipeline->owner),
		ObjectIdGetDatum(spine_extension_table("spine_pipelines")), ObjectIdGetDatum(GetUserId())};
	bool		isnull;

	SPI_execute_with_args(psprintf("SELECT %s.spine_may_change($1, $2, $3)", schema), 3, types, args,
						  NULL, true, 1);
	if (!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be a member of role \"%s\" to %s pipeline \"%s\"",
						GetUserNameFromId(pipeline->owner, false), to_do, NameStr(pipeline->name)),
				 errhint("You must be able to SET ROLE to that role.")));
}

SpinePipeline *
spine_own_pipeline_load(const char *schema, const NameData *name, const char *to_do)
{
	int			level = spine_role_fix_settings();
	SpinePipeline *pipeline = spine_pipeline_load_any(schema, name);

	spine_role_restore_settings(level);
	if (pipeline == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", NameStr(*name))));
	MemoryContextSetParent(pipeline->context, CurrentMemoryContext);
	check_member(schema, pipeline, to_do);
	return pipeline;
}
