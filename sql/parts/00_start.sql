/*
 * spine 0.2.0: what CREATE EXTENSION makes.
 *
 * Put together from sql/parts, in the order in which a user meets things.
 * pg_dump keeps the rows of the tables that are given to
 * pg_extension_config_dump.
 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION spine" to load this file. \quit

-- Other roles may create objects in the schema: none of their operators and functions
-- must be taken for one of PostgreSQL's.
SET LOCAL search_path = pg_catalog, pg_temp;
