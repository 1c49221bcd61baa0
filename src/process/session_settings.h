/*
 * session_settings.h
 *		The settings of a session that works on users' tables unattended.
 */
#ifndef SPINE_SESSION_SETTINGS_H
#define SPINE_SESSION_SETTINGS_H

#include "compat.h"

/* Once, when the process has connected to its database. */
extern void spine_session_settings_apply(void);

/*
 * Has the database other settings (ALTER DATABASE, ALTER ROLE ... IN DATABASE) than when
 * this was last asked?  A process takes them when it connects, and never again.  The first
 * call only remembers them.  Not in a transaction.
 */
extern bool spine_session_settings_changed(void);

#endif							/* SPINE_SESSION_SETTINGS_H */
