/*
 * spine 0.1.0 to 0.2.0: what ALTER EXTENSION UPDATE changes.
 *
 * A database that is updated has what CREATE EXTENSION makes of
 * spine--0.2.0.sql; test/t/025_upgrade.pl compares the two.
 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION spine UPDATE" to load this file. \quit

--
-- spine_wait reads spine_offsets
--

ALTER FUNCTION @extschema@.spine_wait(interval) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
