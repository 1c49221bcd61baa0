/*
 * session_settings.h
 *		The settings of a session that works on users' tables unattended.
 */
#ifndef SPINE_SESSION_SETTINGS_H
#define SPINE_SESSION_SETTINGS_H

/* Once, when the process has connected to its database. */
extern void spine_session_settings_apply(void);

#endif							/* SPINE_SESSION_SETTINGS_H */
