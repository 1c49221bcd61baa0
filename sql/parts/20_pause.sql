--
-- Pause and resume
--

CREATE FUNCTION @extschema@.spine_pause(pipeline name)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_pipelines'::regclass);
	UPDATE @extschema@.spine_pipelines SET enabled = false WHERE name = pipeline;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_pause(name) IS 'stop a pipeline after its current batch; its position is kept';
REVOKE ALL ON FUNCTION @extschema@.spine_pause(name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_resume(pipeline name)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_pipelines'::regclass);
	UPDATE @extschema@.spine_pipelines SET enabled = true WHERE name = pipeline;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_resume(name) IS 'let a paused pipeline go on from where it stopped';
REVOKE ALL ON FUNCTION @extschema@.spine_resume(name) FROM PUBLIC;
