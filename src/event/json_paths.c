/*
 * json_paths.c
 *		The paths of all fields of a decoder, as one tree.
 *
 * Made once for each plan.  Everything is in one allocation.
 */
#include "event/json_paths.h"

#include <stdlib.h>

#define NROOTS			(2 * SPINE_JSON_ROOTS)

/* The nodes that the paths need at most, and the bytes of their members' names. */
static void
measure(const SpineFieldSpec *specs, int nspecs, size_t *nnodes, size_t *name_bytes)
{
	*nnodes = NROOTS;
	*name_bytes = 0;
	for (int i = 0; i < nspecs; i++)
	{
		*nnodes += (size_t) specs[i].path.nsteps;
		for (int s = 0; s < specs[i].path.nsteps; s++)
		{
			if (specs[i].path.steps[s].member)
				*name_bytes += strlen(specs[i].path.steps[s].member) + 1;
		}
	}
}

/* The child of the node for this step.  A new child becomes the last node of the tree. */
static SpineJsonNode *
child_for(SpineJsonPaths *paths, SpineJsonNode *node, const SpinePathStep *step, char **names)
{
	SpineJsonNode *children = step->member ? node->members : node->elements;
	int		   *nchildren = step->member ? &node->nmembers : &node->nelements;
	SpineJsonNode *child;

	for (int i = 0; i < *nchildren; i++)
	{
		if (step->member ? strcmp(children[i].name, step->member) == 0 :
			children[i].element == step->element)
			return &children[i];
	}
	(*nchildren)++;
	node->has_children = true;
	child = &paths->nodes[paths->nnodes++];
	*child = (SpineJsonNode) {.parent = node, .element = step->element, .nsteps = node->nsteps + 1,
		.is_strict = node->is_strict, .spec = -1};
	if (step->member)
	{
		child->len = strlen(step->member);
		child->name = memcpy(*names, step->member, child->len + 1);
		*names += child->len + 1;
	}
	return child;
}

/* Moves the specs at this node to its children, those for members or those for elements. */
static void
add_children(SpineJsonPaths *paths, SpineJsonNode *node, bool members,
			 const SpineFieldSpec *specs, int nspecs, char **names)
{
	SpineJsonNode *first = &paths->nodes[paths->nnodes];

	if (members)
		node->members = first;
	else
		node->elements = first;
	for (int i = 0; i < nspecs; i++)
	{
		const SpinePath *path = &specs[i].path;

		if (paths->specs[i].node == node && node->nsteps < path->nsteps &&
			(path->steps[node->nsteps].member != NULL) == members)
			paths->specs[i].node = child_for(paths, node, &path->steps[node->nsteps], names);
	}
}

static int
compare_elements(const void *a, const void *b)
{
	uint32_t	x = (*(SpineJsonNode *const *) a)->element;
	uint32_t	y = (*(SpineJsonNode *const *) b)->element;

	return (x > y) - (x < y);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(SpineJsonNode *const *) a)->name, (*(SpineJsonNode *const *) b)->name);
}

/* sorted: a place for each node of the tree. */
static void
sort_children(SpineJsonPaths *paths, SpineJsonNode *node, SpineJsonNode **sorted)
{
	node->by_name = &sorted[node->members - paths->nodes];
	for (int i = 0; i < node->nmembers; i++)
	{
		node->by_name[i] = &node->members[i];
		node->members[i].next = &node->members[(i + 1) % node->nmembers];
	}
	if (node->nmembers > 1)
		qsort(node->by_name, (size_t) node->nmembers, sizeof(*sorted), compare_names);

	node->by_element = &sorted[node->elements - paths->nodes];
	for (int i = 0; i < node->nelements; i++)
		node->by_element[i] = &node->elements[i];
	if (node->nelements > 1)
		qsort(node->by_element, (size_t) node->nelements, sizeof(*sorted), compare_elements);
}

static void
link_same_paths(SpineJsonPaths *paths, int nspecs)
{
	for (int i = 0; i < nspecs; i++)
	{
		SpineJsonNode *node = paths->specs[i].node;

		if (node->spec < 0)
			node->spec = paths->specs[i].same_path = i;
		else
		{
			paths->specs[i].same_path = paths->specs[node->spec].same_path;
			paths->specs[node->spec].same_path = i;
		}
	}
}

/* Can records be decoded whose value is not an object? */
static bool
takes_any_value(const SpineFieldSpec *specs, int nspecs)
{
	for (int i = 0; i < nspecs; i++)
	{
		const SpinePath *path = &specs[i].path;

		if (path->root == SPINE_ROOT_VALUE && (path->nsteps == 0 || path->steps[0].member == NULL))
			return true;
	}
	return false;
}

/* All of the root is the same for both kinds of paths, and so are the members of an object. */
static SpineJsonNode *
root_of(SpineJsonPaths *paths, const SpinePath *path, bool is_object)
{
	int			nsame = is_object && path->root == SPINE_ROOT_VALUE ? 1 : 0;

	return &paths->nodes[path->root + (path->strict && path->nsteps > nsame ? SPINE_JSON_ROOTS : 0)];
}

SpineJsonPaths *
spine_json_paths_make(const SpineFieldSpec *specs, int nspecs)
{
	SpineJsonPaths *paths;
	SpineJsonNode **sorted;
	char	   *names;
	size_t		nnodes;
	size_t		name_bytes;
	bool		is_object = !takes_any_value(specs, nspecs);

	measure(specs, nspecs, &nnodes, &name_bytes);
	paths = calloc(1, sizeof(SpineJsonPaths) +
				   nnodes * (sizeof(SpineJsonNode) + 2 * sizeof(SpineJsonActive) + sizeof(*sorted)) +
				   (size_t) nspecs * sizeof(SpineJsonSpec) + name_bytes);
	if (paths == NULL)
		return NULL;
	paths->active = (SpineJsonActive *) &paths->nodes[nnodes];
	sorted = (SpineJsonNode **) &paths->active[2 * nnodes];
	paths->specs = (SpineJsonSpec *) &sorted[nnodes];
	names = (char *) &paths->specs[nspecs];

	/* all specs are at their root, and move down by a step at a time */
	for (int root = 0; root < NROOTS; root++)
	{
		paths->nodes[root].spec = -1;
		paths->nodes[root].is_strict = root >= SPINE_JSON_ROOTS;
	}
	for (int i = 0; i < nspecs; i++)
		paths->specs[i] = (SpineJsonSpec) {
			.as_json = specs[i].as_json,
			.for_jsonb = specs[i].for_jsonb,
			.node = root_of(paths, &specs[i].path, is_object)
		};
	paths->nnodes = NROOTS;
	for (int i = 0; i < paths->nnodes; i++)
	{
		SpineJsonNode *node = &paths->nodes[i];

		add_children(paths, node, true, specs, nspecs, &names);
		add_children(paths, node, false, specs, nspecs, &names);
		sort_children(paths, node, sorted);
	}
	link_same_paths(paths, nspecs);
	return paths;
}

SpineJsonNode *
spine_json_find_element(const SpineJsonNode *node, uint32_t element)
{
	int			low = 0;
	int			high = node->nelements;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		SpineJsonNode *found = node->by_element[middle];

		if (found->element == element)
			return found;
		if (element < found->element)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}
