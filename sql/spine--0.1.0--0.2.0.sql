/*
 * spine 0.1.0 to 0.2.0: what ALTER EXTENSION UPDATE changes.
 *
 * A database that is updated has what CREATE EXTENSION makes of
 * spine--0.2.0.sql; test/t/025_upgrade.pl compares the two.
 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION spine UPDATE" to load this file. \quit

--
-- Positions that are none: a negative one would mean something else to the library
--

DO $$
BEGIN
	IF EXISTS (SELECT FROM @extschema@.spine_offsets WHERE partition < 0 OR next_offset < 0) THEN
		RAISE EXCEPTION 'spine_offsets has a row whose partition or next_offset is negative'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  HINT = 'Say where to go on from with spine_seek, or delete the row; then update the extension.';
	END IF;
END
$$;
UPDATE @extschema@.spine_offsets SET mark_offset = NULL WHERE mark_offset < 0;
ALTER TABLE @extschema@.spine_offsets
	ADD CHECK (partition >= 0), ADD CHECK (next_offset >= 0), ADD CHECK (mark_offset >= 0);

CREATE OR REPLACE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(
		of_pipeline, of_partition,
		CASE WHEN target ~ '^-?\d+$' THEN target::bigint END,
		CASE WHEN target !~ '^-?\d+$' AND target NOT IN ('earliest', 'latest') THEN target::timestamptz END,
		CASE WHEN target IN ('earliest', 'latest') THEN target END)
$$;

--
-- spine_wait reads spine_offsets
--

ALTER FUNCTION @extschema@.spine_wait(interval) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
