--
-- What becomes of the records of a pipeline
--

CREATE FUNCTION @extschema@.spine_explain(pipeline name)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'spine_explain'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_explain(name) IS
'where each column of a pipeline''s sinks comes from, and their statements; for members of its owner';
