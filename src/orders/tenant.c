/*
 * tenant.c
 *		Checks a tenant's name, and spells it as JSON.
 */
#include "orders/tenant.h"

#include "mb/pg_wchar.h"
#include "orders/generator.h"

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
	tenant->message_size = strlen(literal) + 256;
	free(literal);
}
