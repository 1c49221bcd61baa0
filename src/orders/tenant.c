/*
 * tenant.c
 *		Checks a tenant's name, spells it as JSON, and makes events with it.
 */
#include "orders/tenant.h"

#include "mb/pg_wchar.h"
#include "orders/generator.h"
#include "utils/timestamp.h"

void
spine_tenant_init(SpineTenant *tenant, const char *utf8_name)
{
	char	   *literal;

	tenant->len = strlen(utf8_name);
	if (tenant->len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tenant must not be empty")));
	if (tenant->len > SPINE_MAX_TENANT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tenant is too long"),
				 errdetail("It has %zu bytes; %d are allowed.", tenant->len, SPINE_MAX_TENANT_BYTES)));
	if (!pg_verify_mbstr(PG_UTF8, utf8_name, tenant->len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("tenant is not valid UTF-8")));

	literal = spine_generator_tenant_literal(utf8_name, tenant->len);
	if (literal == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	tenant->name = pstrdup(utf8_name);
	tenant->literal = pstrdup(literal);
	free(literal);
}

size_t
spine_tenant_make_event(const SpineTenant *tenant, char *json)
{
	static SpineRandom random;
	static bool is_seeded = false;
	int64		unix_time_us = GetCurrentTimestamp() +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	uint64		seed;

	if (!is_seeded)
	{
		if (!pg_strong_random(&seed, sizeof(seed)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
		spine_generator_seed(&random, seed);
		is_seeded = true;
	}
	return spine_generator_event(&random, tenant->literal, unix_time_us, json, SPINE_MAX_EVENT_BYTES);
}
