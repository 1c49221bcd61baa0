/*
 * server_options.c
 *		The validator of the foreign-data wrapper spine_kafka: which options a server and
 *		a user mapping may have.
 *
 * PostgreSQL gives a validator all options, whichever of them a statement changes.  So
 * what only some roles may set, other roles cannot keep when they change the rest.
 */
#include "process/server_options.h"

#include <ctype.h>

#include "access/reloptions.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "kafka/option_list.h"
#include "kafka/options.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(spine_kafka_validator);

/* A name with more mistakes than this is not meant. */
#define MAX_MISTAKES	5

const char *
spine_server_option_key(const char *name)
{
	if (strcmp(name, "user") == 0)
		return "sasl.username";
	if (strcmp(name, "password") == 0)
		return "sasl.password";
	if (strcmp(name, SPINE_BROKERS_OPTION) == 0 || strcmp(name, SPINE_PASSWORD_REQUIRED_OPTION) == 0)
		return NULL;
	return name;
}

/* The option that was probably meant, or NULL. */
static const char *
nearest_option(const char *name)
{
	static const char *const other_names[][2] = {
		{"bootstrap.servers", SPINE_BROKERS_OPTION},
		{"metadata.broker.list", SPINE_BROKERS_OPTION},
		{"sasl.username", "user"},
		{"sasl.password", "password"},
	};
	const char *nearest = NULL;
	const char *option;
	int			mistakes = Min(MAX_MISTAKES, (int) strlen(name) / 2);

	for (int i = 0; i < (int) lengthof(other_names); i++)
	{
		if (strcmp(name, other_names[i][0]) == 0)
			return other_names[i][1];
	}
	for (int i = 0; (option = spine_option_list_name(i)) != NULL; i++)
	{
		int			distance = varstr_levenshtein_less_equal(name, strlen(name), option, strlen(option),
															 1, 1, 1, mistakes, true);

		if (distance <= mistakes)
		{
			nearest = option;
			mistakes = distance - 1;
		}
	}
	return nearest;
}

pg_noreturn static void
refuse_name(const char *name, const char *why_not)
{
	const char *nearest = nearest_option(name);

	if (nearest && strcmp(nearest, name) == 0)
		nearest = NULL;			/* it is an option, but not here */
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 why_not ? errdetail("It cannot be set here: %s.", why_not) : 0,
			 nearest ? errhint("Perhaps you meant the option \"%s\".", nearest) :
			 errhint("The options that can be set are listed in spine's docs/CONFIGURATION.md.")));
}

pg_noreturn static void
refuse_value(const char *name, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\"", name),
			 errdetail("%s", reason)));
}

static void
check_brokers(const char *brokers)
{
	bool		has_name = false;

	for (const char *c = brokers; *c; c++)
	{
		if (iscntrl((unsigned char) *c))
			refuse_value(SPINE_BROKERS_OPTION, "It has a control character in it.");
		has_name |= isalnum((unsigned char) *c);
	}
	if (!has_name)
		refuse_value(SPINE_BROKERS_OPTION, "It is a list of brokers, as host:port[,...].");
}

/* An option of librdkafka's. */
static void
check_library_option(const char *name, const char *key, const char *value)
{
	StringInfoData list;
	char		reason[256];

	if (spine_option_list_place(key) == SPINE_OPTION_OF_NEITHER)
		refuse_name(name, "it is only for trying out, in spine.kafka_options");
	if (spine_option_list_names_file(key) && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 errdetail("The server would read the file: only members of pg_read_server_files may set it.")));

	initStringInfo(&list);
	spine_kafka_options_add(&list, key, value);
	if (!spine_kafka_options_check(list.data, reason, sizeof(reason)))
		refuse_value(name, reason);
}

static void
check_server_option(const char *name, const char *value)
{
	const char *why_not;

	if (strcmp(name, SPINE_BROKERS_OPTION) == 0)
		check_brokers(value);
	else if (strcmp(name, "user") == 0 || strcmp(name, "password") == 0 ||
			 strcmp(name, SPINE_PASSWORD_REQUIRED_OPTION) == 0 ||
			 (spine_option_list_allows(name, &why_not) &&
			  spine_option_list_place(name) == SPINE_OPTION_OF_USER))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" belongs to a user mapping", name),
				 errdetail("Every role can read the options of a server."),
				 errhint("CREATE USER MAPPING FOR role SERVER name OPTIONS (user 'name', password 'secret');")));
	else if (!spine_option_list_allows(name, &why_not))
		refuse_name(name, why_not);
	else
		check_library_option(name, name, value);
}

static void
check_user_option(DefElem *option)
{
	const char *name = option->defname;
	const char *key = spine_server_option_key(name);
	const char *why_not;

	if (strcmp(name, SPINE_PASSWORD_REQUIRED_OPTION) == 0)
	{
		if (!defGetBoolean(option) && !superuser())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("%s=false is for superusers only", name),
					 errdetail("Without a password, the server's own files and tickets may be what logs in.")));
	}
	else if (strcmp(name, "sasl.username") == 0 || strcmp(name, "sasl.password") == 0)
		refuse_name(name, NULL);
	else if (key == NULL ||
			 (spine_option_list_allows(key, &why_not) && spine_option_list_place(key) == SPINE_OPTION_OF_SERVER))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" belongs to the server", name),
				 errhint("CREATE SERVER or ALTER SERVER sets it.")));
	else if (!spine_option_list_allows(key, &why_not))
		refuse_name(name, why_not);
	else
		check_library_option(name, key, defGetString(option));
}

Datum
spine_kafka_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (catalog == ForeignServerRelationId)
			check_server_option(option->defname, defGetString(option));
		else if (catalog == UserMappingRelationId)
			check_user_option(option);
		else
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", option->defname),
					 errhint("Only servers and user mappings have options here.")));
	}
	PG_RETURN_VOID();
}
