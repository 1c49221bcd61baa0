/*
 * pipeline_check.c
 *		spine_check_pipeline_plan: what a worker would complain about, when a pipeline is
 *		written down.
 */
#include "compat.h"

#include "apply/check.h"
#include "catalog/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "process/settings.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(spine_check_pipeline_plan);

/* spine_check_pipeline_plan(name) */
Datum
spine_check_pipeline_plan(PG_FUNCTION_ARGS)
{
	SpinePipeline *pipeline;
	SpinePlan  *plan;

	SPI_connect();
	pipeline = spine_pipeline_load_any(spine_extension_schema(), PG_GETARG_NAME(0));
	if (pipeline)
		MemoryContextSetParent(pipeline->context, CurrentMemoryContext);	/* until SPI_finish */
	if (pipeline && pipeline->nsinks > 0)
	{
		plan = spine_plan_make(pipeline, (size_t) spine_max_record_memory_kb * 1024);
		MemoryContextSetParent(plan->context, CurrentMemoryContext);
		spine_plan_check(plan);
		spine_trust_check(plan->trust);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
