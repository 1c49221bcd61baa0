/*
 * spine 0.2.0: what CREATE EXTENSION makes.
 *
 * The parts of sql/parts, one after the other: in the order in which a user
 * meets things, and each object after what it needs.  pg_dump keeps the rows of
 * a table that is given to pg_extension_config_dump.
 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION spine" to load this file. \quit

-- Others may create in the schema: no operator or function of theirs is taken for one
-- of PostgreSQL's.
SET LOCAL search_path = pg_catalog, pg_temp;
