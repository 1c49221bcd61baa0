/*
 * role.h
 *		Acts as another role for a while, and with settings of our own.
 *
 * Nothing needs to be restored after an error: the end of the (sub)transaction does that.
 */
#ifndef SPINE_ROLE_H
#define SPINE_ROLE_H

#include "compat.h"

/* What is to be restored. */
typedef struct SpineRole
{
	Oid			userid;
	int			security_context;
	int			settings_level;
} SpineRole;

/*
 * Acts as the role, in a security-restricted operation: for code that is attached to a sink's
 * table, such as a trigger or the check of a domain.  What such code sets ends with it.  In a
 * transaction.
 */
extern void spine_role_assume(SpineRole *saved, Oid role);
extern void spine_role_resume(const SpineRole *saved);

/*
 * From here on the meaning of names and values does not depend on the session: the
 * search_path is empty, and a time without a zone is UTC.  Returns what
 * spine_role_restore_settings takes back.
 */
extern int	spine_role_fix_settings(void);
extern void spine_role_restore_settings(int level);

#endif							/* SPINE_ROLE_H */
