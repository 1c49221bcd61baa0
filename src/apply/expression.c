/*
 * expression.c
 *		Parses, analyses and checks SQL expressions over a record.
 *
 * PostgreSQL's own parser decides what one expression is.  The record is then put behind it
 * as FROM has a table, so that names and sub-SELECTs mean what they mean in any query, and
 * errors point to their place in the text.
 */
#include "apply/expression.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_node.h"
#include "parser/parser.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* For the planner: how many rows a batch has, about. */
#define TYPICAL_BATCH_ROWS	100

/* An expression while it is analysed: for errors. */
typedef struct Analysis
{
	const char *text;
	const char *column;			/* NULL: a filter */
} Analysis;

/* --------------------------------------------------------------------------
 * Errors
 * -------------------------------------------------------------------------- */

void
spine_expression_name_in_error(const char *column)
{
	if (column)
	{
		err_generic_string(PG_DIAG_COLUMN_NAME, column);
		errcontext("SQL expression of column \"%s\"", column);
	}
	else
	{
		err_generic_string(PG_DIAG_COLUMN_NAME, "(filter)");
		errcontext("filter of a sink");
	}
}

/* The user knows this text, and not the statement that brought it here. */
static void
analysis_error_context(void *arg)
{
	const Analysis *analysis = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
	}
	internalerrquery(analysis->text);

	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_COLUMN:
			errhint("A record has the columns topic, partition, \"offset\", \"timestamp\", key, value, headers, key_bytes and value_bytes.");
			break;
		case ERRCODE_UNDEFINED_FUNCTION:
			errhint("Qualify names with their schema, because the search_path is empty here. You might also need explicit type casts.");
			break;
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_OBJECT:
			errhint("Qualify names with their schema, because the search_path is empty here.");
			break;
		default:
			break;
	}
	spine_expression_name_in_error(analysis->column);
}

static void
refuse(ParseState *pstate, int sqlstate, int location, const char *message)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s", message),
			 parser_errposition(pstate, location)));
}

/* --------------------------------------------------------------------------
 * One expression
 * -------------------------------------------------------------------------- */

/* The grammar of PL/pgSQL's expressions has all that may stand behind a SELECT's list. */
static void
check_is_one(ParseState *pstate, const SelectStmt *select)
{
	const Node *extra[] = {
		(const Node *) select->distinctClause, (const Node *) select->fromClause,
		select->whereClause, (const Node *) select->groupClause, select->havingClause,
		(const Node *) select->windowClause, (const Node *) select->sortClause,
		select->limitOffset, select->limitCount, (const Node *) select->lockingClause
	};
	const ResTarget *target;

	for (int i = 0; i < (int) lengthof(extra); i++)
	{
		if (extra[i])
			refuse(pstate, ERRCODE_SYNTAX_ERROR, exprLocation(extra[i]),
				   "an SQL expression over a record has nothing of a query behind it");
	}
	if (select->targetList == NIL)
		refuse(pstate, ERRCODE_SYNTAX_ERROR, 0, "there is no SQL expression");
	if (list_length(select->targetList) > 1)
		refuse(pstate, ERRCODE_SYNTAX_ERROR, exprLocation(lsecond(select->targetList)),
			   "more than one SQL expression");
	target = linitial_node(ResTarget, select->targetList);
	if (target->name)
		refuse(pstate, ERRCODE_SYNTAX_ERROR, exprLocation((const Node *) target),
			   "an SQL expression over a record has no name");
}

static RawStmt *
parse(ParseState *pstate)
{
	RawStmt    *raw = linitial_node(RawStmt, raw_parser(pstate->p_sourcetext, RAW_PARSE_PLPGSQL_EXPR));
	SelectStmt *select = castNode(SelectStmt, raw->stmt);

	check_is_one(pstate, select);
	select->fromClause = list_make1(makeRangeVar(NULL, SPINE_RECORD_RELATION, -1));
	return raw;
}

/* --------------------------------------------------------------------------
 * What may stand in it
 * -------------------------------------------------------------------------- */

typedef struct Check
{
	ParseState *pstate;
	int			depth;			/* of sub-SELECTs */
} Check;

/*
 * The record is a row, and not a table.  Its type is not known to anybody else, and it has
 * more columns when the expression runs.
 */
static bool
check_record_uses(Node *node, void *arg)
{
	Check	   *check = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		const Var  *var = (const Var *) node;

		if ((int) var->varlevelsup == check->depth && var->varattno == InvalidAttrNumber)
			refuse(check->pstate, ERRCODE_FEATURE_NOT_SUPPORTED, var->location,
				   "the record cannot be used as a whole");
		return false;
	}
	if (IsA(node, RangeTblEntry))
	{
		if (((const RangeTblEntry *) node)->rtekind == RTE_NAMEDTUPLESTORE)
			refuse(check->pstate, ERRCODE_FEATURE_NOT_SUPPORTED, -1,
				   "a sub-SELECT cannot read from the record as from a table");
		return false;
	}
	if (IsA(node, Query))
	{
		bool		result;

		check->depth++;
		result = query_tree_walker((Query *) node, check_record_uses, arg, QTW_EXAMINE_RTES_BEFORE);
		check->depth--;
		return result;
	}
	return expression_tree_walker(node, check_record_uses, arg);
}

static void
check_query(ParseState *pstate, const Query *query)
{
	Node	   *list = (Node *) query->targetList;
	Check		check = {pstate, 0};

	if (list_length(query->targetList) != 1)	/* an asterisk */
		refuse(pstate, ERRCODE_SYNTAX_ERROR, exprLocation(list), "more than one SQL expression");
	if (query->hasAggs)
		refuse(pstate, ERRCODE_GROUPING_ERROR, locate_agg_of_level(list, 0),
			   "aggregate functions are not allowed in an SQL expression over a record");
	if (query->hasWindowFuncs)
		refuse(pstate, ERRCODE_WINDOWING_ERROR, locate_windowfunc(list),
			   "window functions are not allowed in an SQL expression over a record");
	if (query->hasTargetSRFs)
		refuse(pstate, ERRCODE_FEATURE_NOT_SUPPORTED, exprLocation(pstate->p_last_srf),
			   "set-returning functions are not allowed in an SQL expression over a record");
	(void) check_record_uses(list, &check);
}

/* For check_functions_in_node: may it read a table? */
static bool
may_read(Oid function, void *arg)
{
	return function >= FirstNormalObjectId && func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

static bool
looks_up(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((const RangeTblEntry *) node)->rtekind == RTE_RELATION;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, looks_up, arg, QTW_EXAMINE_RTES_BEFORE);
	return check_functions_in_node(node, may_read, arg) || expression_tree_walker(node, looks_up, arg);
}

bool
spine_expression_looks_up(Node *expr)
{
	return looks_up(expr, NULL);
}

/* --------------------------------------------------------------------------
 * Its type
 * -------------------------------------------------------------------------- */

/* As INSERT makes a value of the column's type. */
static Node *
coerce(ParseState *pstate, Node *expr, const SpineTableColumn *column)
{
	Oid			type = exprType(expr);
	int			location = exprLocation(expr);
	Node	   *result;

	if (column == NULL)
		return coerce_to_boolean(pstate, expr, "filter");
	result = coerce_to_target_type(pstate, expr, type, column->type, column->typmod,
								   COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s but expression is of type %s", column->name,
						format_type_be(column->type), format_type_be(type)),
				 errhint("You will need to rewrite or cast the expression."),
				 parser_errposition(pstate, location)));
	return result;
}

QueryEnvironment *
spine_expression_environment(TupleDesc record, void *rows)
{
	QueryEnvironment *environment = create_queryEnv();
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = SPINE_RECORD_RELATION;
	relation->md.tupdesc = record;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = TYPICAL_BATCH_ROWS;
	relation->reldata = rows;
	register_ENR(environment, relation);
	return environment;
}

Node *
spine_expression_analyse(const char *text, const SpineTableColumn *column, TupleDesc record)
{
	Analysis	analysis = {text, column ? column->name : NULL};
	ErrorContextCallback callback = {error_context_stack, analysis_error_context, &analysis};
	ParseState *pstate = make_parsestate(NULL);
	Query	   *query;
	Node	   *expr;

	Assert(IsTransactionState());
	error_context_stack = &callback;
	pstate->p_sourcetext = text;
	pstate->p_queryEnv = spine_expression_environment(record, NULL);
	pstate->p_resolve_unknowns = false;		/* 'today' becomes what the column is, as in INSERT */
	query = transformTopLevelStmt(pstate, parse(pstate));
	check_query(pstate, query);
	expr = coerce(pstate, (Node *) linitial_node(TargetEntry, query->targetList)->expr, column);
	assign_expr_collations(pstate, expr);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return expr;
}
