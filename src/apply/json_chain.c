/*
 * json_chain.c
 *		Finds chains of jsonb operators that are a path into one value.
 */
#include "apply/json_chain.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "nodes/primnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

static void
add_step(SpineJsonChain *chain, SpinePathStep step)
{
	chain->steps = chain->steps ?
		repalloc(chain->steps, (chain->nsteps + 1) * sizeof(SpinePathStep)) : palloc(sizeof(SpinePathStep));
	chain->steps[chain->nsteps++] = step;
}

static const char *
utf8_copy(const char *text)
{
	return pstrdup(pg_server_to_any(text, strlen(text), PG_UTF8));
}

/* Would #> take it for the number of an element, if it met an array? */
static bool
looks_like_element(const char *text)
{
	char	   *end;

	(void) strtol(text, &end, 10);
	return end != text && *end == '\0';
}

/* The names in '{a,b}'; false: some may be numbers of elements. */
static bool
add_names(SpineJsonChain *chain, ArrayType *names)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = nulls[i] ? NULL : TextDatumGetCString(elements[i]);

		if (name == NULL || looks_like_element(name))
			return false;
		add_step(chain, (SpinePathStep) {.member = utf8_copy(name)});
	}
	return n > 0;
}

/* A step to the right of an operator; negative elements count from the end. */
static bool
add_operand(SpineJsonChain *chain, const Node *operand)
{
	const Const *constant = (const Const *) operand;

	if (!IsA(operand, Const) || constant->constisnull)
		return false;
	if (constant->consttype == TEXTARRAYOID)
		return add_names(chain, DatumGetArrayTypeP(constant->constvalue));
	if (constant->consttype == TEXTOID)
		add_step(chain, (SpinePathStep) {.member = utf8_copy(TextDatumGetCString(constant->constvalue))});
	else if (constant->consttype == INT4OID && DatumGetInt32(constant->constvalue) >= 0)
		add_step(chain, (SpinePathStep) {.element = DatumGetInt32(constant->constvalue)});
	else
		return false;
	return true;
}

bool
spine_json_chain_read(SpineJsonChain *chain, const Node *node, int depth)
{
	const OpExpr *op = (const OpExpr *) node;

	if (IsA(node, Var))
	{
		chain->attribute = ((const Var *) node)->varattno;
		return (int) ((const Var *) node)->varlevelsup == depth;
	}
	if (!IsA(node, OpExpr) || list_length(op->args) != 2)
		return false;
	switch (op->opfuncid)
	{
		case F_JSONB_OBJECT_FIELD:
		case F_JSONB_ARRAY_ELEMENT:
		case F_JSONB_EXTRACT_PATH:
		case F_JSONB_OBJECT_FIELD_TEXT:
		case F_JSONB_ARRAY_ELEMENT_TEXT:
		case F_JSONB_EXTRACT_PATH_TEXT:
			break;
		default:
			return false;
	}
	if (!spine_json_chain_read(chain, linitial(op->args), depth) || !add_operand(chain, lsecond(op->args)))
		return false;
	chain->as_text = op->opresulttype == TEXTOID;	/* of the last step; the others yield jsonb */
	return true;
}
