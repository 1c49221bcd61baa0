--
-- Waiting for what was sent
--

CREATE FUNCTION @extschema@.spine_wait(timeout interval DEFAULT '30s')
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_wait'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.spine_wait(interval) IS
'wait until everything that is on the topics at the time of the call is applied and visible; false on timeout';
REVOKE ALL ON FUNCTION @extschema@.spine_wait(interval) FROM PUBLIC;
