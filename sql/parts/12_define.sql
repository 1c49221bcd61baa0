--
-- Pipelines and sinks by functions
--

-- A function f(...) that everybody may call is a gate: it calls f_as(caller, ...) with the
-- rights of that function's owner.  f_as decides what the caller may do.  Called in any
-- other way it has no more rights than who calls it.

-- Raises an error in place of that of a constraint.
CREATE FUNCTION @extschema@.spine_refuse_value(violated text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION USING
		ERRCODE = 'invalid_parameter_value',
		MESSAGE = CASE violated
			WHEN 'spine_pipelines_name_check' THEN 'the name of a pipeline must not be empty'
			WHEN 'spine_pipelines_topic_check' THEN 'topic must be the name of a topic, several with commas between them, or a regular expression that begins with ^'
			WHEN 'spine_pipelines_start_check' THEN 'start must be earliest or latest'
			WHEN 'spine_sinks_mode_check' THEN 'mode must be append or upsert'
			WHEN 'spine_sinks_key_check' THEN 'key must be a list of columns'
			WHEN 'spine_sinks_columns_check' THEN 'columns must be a JSON object, and not an empty one'
			WHEN 'spine_sinks_check' THEN 'a sink of mode append has no version'
			ELSE format('a value violates the constraint %I', violated) END;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_refuse_value(text) IS 'says in words what a constraint of the catalog demands';
REVOKE ALL ON FUNCTION @extschema@.spine_refuse_value(text) FROM PUBLIC;

-- The row of a pipeline that the caller may change; the error otherwise.
CREATE FUNCTION @extschema@.spine_lock_pipeline(caller oid, pipeline name)
RETURNS @extschema@.spine_pipelines
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	locked	@extschema@.spine_pipelines;
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_pipelines'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_sinks'::regclass);
	LOOP
		SELECT *
		INTO locked
		FROM @extschema@.spine_pipelines p
		WHERE p.name = pipeline;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
				USING ERRCODE = 'undefined_object',
					  HINT = 'The table spine_pipelines lists the pipelines.';
		END IF;
		IF NOT @extschema@.spine_may_change(locked.owner, '@extschema@.spine_pipelines'::regclass, caller) THEN
			RAISE EXCEPTION 'must be a member of role % to change pipeline "%"', locked.owner, pipeline
				USING ERRCODE = 'insufficient_privilege',
					  HINT = 'You must be able to SET ROLE to that role.';
		END IF;
		-- only now, so that nobody can hold the rows of others; the owner may be another by now
		SELECT *
		INTO locked
		FROM @extschema@.spine_pipelines p
		WHERE p.name = pipeline AND p.owner = locked.owner
		FOR NO KEY UPDATE;
		IF FOUND THEN
			RETURN locked;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_lock_pipeline(oid, name) IS
'the row of a pipeline, locked; raises an error when the caller may not change the pipeline';
REVOKE ALL ON FUNCTION @extschema@.spine_lock_pipeline(oid, name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_check_new_owner(caller oid, pipeline name, new_owner regrole)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT @extschema@.spine_may_change(new_owner, '@extschema@.spine_pipelines'::regclass, caller) THEN
		RAISE EXCEPTION 'must be a member of role % to make it the owner of pipeline "%"', new_owner, pipeline
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'You must be able to SET ROLE to that role.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_check_new_owner(oid, name, regrole) IS
'raises an error when the caller may not make a pipeline apply as this role';
REVOKE ALL ON FUNCTION @extschema@.spine_check_new_owner(oid, name, regrole) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_check_pipeline_plan(pipeline name)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_pipeline_plan'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_pipeline_plan(name) IS
'raises what a worker would fail with: a column that does not exist, a privilege that the owner lacks, and the like';
REVOKE ALL ON FUNCTION @extschema@.spine_check_pipeline_plan(name) FROM PUBLIC;

-- The arguments that are to be changed, with their defaults in place of null.
CREATE FUNCTION @extschema@.spine_changes(changes jsonb, defaults jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	unknown	text;
BEGIN
	IF jsonb_typeof(changes) IS DISTINCT FROM 'object' THEN
		RAISE EXCEPTION 'changes must be a JSON object'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT min(k)
	INTO unknown
	FROM jsonb_object_keys(changes) k
	WHERE NOT defaults ? k;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION 'there is no argument "%" to change', unknown
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = format('The arguments are: %s.', (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(defaults) k));
	END IF;
	RETURN (
		SELECT coalesce(jsonb_object_agg(c.key, CASE c.value WHEN 'null' THEN defaults -> c.key ELSE c.value END), '{}')
		FROM jsonb_each(changes) c);
END
$$;
COMMENT ON FUNCTION @extschema@.spine_changes(jsonb, jsonb) IS 'part of spine_alter_pipeline and spine_alter_sink';
REVOKE ALL ON FUNCTION @extschema@.spine_changes(jsonb, jsonb) FROM PUBLIC;

--
-- Sinks
--

CREATE FUNCTION @extschema@.spine_add_sink_as(caller oid, pipeline name, target regclass, mode text,
	key name[], version name, columns jsonb, filter text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	violated	text;
BEGIN
	PERFORM @extschema@.spine_lock_pipeline(caller, pipeline);
	IF target IS NULL THEN
		RAISE EXCEPTION 'the target of a sink must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	BEGIN
		INSERT INTO @extschema@.spine_sinks (pipeline, target, mode, key, version, columns, filter)
		VALUES (pipeline, target, coalesce(mode, 'append'), key, version, columns, filter);
	EXCEPTION
		WHEN unique_violation THEN
			RAISE EXCEPTION 'pipeline "%" has a sink % already', pipeline, target
				USING ERRCODE = 'duplicate_object';
		WHEN check_violation THEN
			GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
			PERFORM @extschema@.spine_refuse_value(violated);
	END;
	PERFORM @extschema@.spine_check_pipeline_plan(pipeline);
END
$$;
COMMENT ON FUNCTION @extschema@.spine_add_sink_as(oid, name, regclass, text, name[], name, jsonb, text) IS 'part of spine_add_sink';
REVOKE ALL ON FUNCTION @extschema@.spine_add_sink_as(oid, name, regclass, text, name[], name, jsonb, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_add_sink(pipeline name, target regclass, mode text DEFAULT 'append',
	key name[] DEFAULT NULL, version name DEFAULT NULL, columns jsonb DEFAULT NULL, filter text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_add_sink(name, regclass, text, name[], name, jsonb, text) IS
'let a pipeline write to one more table, after those that it has';
GRANT EXECUTE ON FUNCTION @extschema@.spine_add_sink(name, regclass, text, name[], name, jsonb, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_alter_sink_as(caller oid, pipeline name, target regclass, changes jsonb,
	new_target regclass)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	sink		@extschema@.spine_sinks;
	violated	text;
BEGIN
	PERFORM @extschema@.spine_lock_pipeline(caller, pipeline);
	SELECT *
	INTO sink
	FROM @extschema@.spine_sinks s
	WHERE s.pipeline = spine_alter_sink_as.pipeline AND s.target = spine_alter_sink_as.target;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" has no sink %', pipeline, target
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_sinks lists the sinks.';
	END IF;
	sink := jsonb_populate_record(sink, @extschema@.spine_changes(changes, jsonb_build_object(
		'mode', 'append', 'key', NULL, 'version', NULL, 'columns', NULL, 'filter', NULL)));
	BEGIN
		UPDATE @extschema@.spine_sinks s
		SET target = coalesce(new_target, sink.target), mode = sink.mode, key = sink.key, version = sink.version,
			columns = sink.columns, filter = sink.filter
		WHERE s.pipeline = sink.pipeline AND s.target = spine_alter_sink_as.target;
	EXCEPTION
		WHEN unique_violation THEN
			RAISE EXCEPTION 'pipeline "%" has a sink % already', pipeline, new_target
				USING ERRCODE = 'duplicate_object';
		WHEN check_violation THEN
			GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
			PERFORM @extschema@.spine_refuse_value(violated);
	END;
	PERFORM @extschema@.spine_check_pipeline_plan(pipeline);
END
$$;
COMMENT ON FUNCTION @extschema@.spine_alter_sink_as(oid, name, regclass, jsonb, regclass) IS 'part of spine_alter_sink';
REVOKE ALL ON FUNCTION @extschema@.spine_alter_sink_as(oid, name, regclass, jsonb, regclass) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_alter_sink(pipeline name, target regclass, changes jsonb DEFAULT '{}',
	new_target regclass DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_alter_sink(name, regclass, jsonb, regclass) IS
'change arguments that a sink was made with (null: back to the default), or let it write to another table';
GRANT EXECUTE ON FUNCTION @extschema@.spine_alter_sink(name, regclass, jsonb, regclass) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_drop_sink_as(caller oid, pipeline name, target regclass, if_exists boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM @extschema@.spine_lock_pipeline(caller, pipeline);
	DELETE FROM @extschema@.spine_sinks s
	WHERE s.pipeline = spine_drop_sink_as.pipeline AND s.target = spine_drop_sink_as.target;
	IF NOT FOUND AND if_exists THEN
		RAISE NOTICE 'pipeline "%" has no sink %, skipping', pipeline, target;
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" has no sink %', pipeline, target
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_sinks lists the sinks.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_drop_sink_as(oid, name, regclass, boolean) IS 'part of spine_drop_sink';
REVOKE ALL ON FUNCTION @extschema@.spine_drop_sink_as(oid, name, regclass, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_drop_sink(pipeline name, target regclass, if_exists boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_drop_sink(name, regclass, boolean) IS
'let a pipeline no longer write to a table; the table and its rows stay';
GRANT EXECUTE ON FUNCTION @extschema@.spine_drop_sink(name, regclass, boolean) TO PUBLIC;

--
-- Pipelines
--

CREATE FUNCTION @extschema@.spine_create_pipeline_as(caller oid, name name, topic text, target regclass,
	mode text, key name[], version name, columns jsonb, filter text, server name, start text,
	owner regrole, enabled boolean, if_not_exists boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	is_there	boolean;
	violated	text;
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_pipelines'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_sinks'::regclass);
	owner := coalesce(owner, caller::regrole);
	PERFORM @extschema@.spine_check_new_owner(caller, name, owner);
	IF name IS NULL THEN
		RAISE EXCEPTION 'the name of a pipeline must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF target IS NULL AND num_nonnulls(key, version, columns, filter) > 0 THEN
		RAISE EXCEPTION 'key, version, columns and filter belong to a target'
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = 'Name the target, or give them to spine_add_sink.';
	END IF;

	-- looked for first: inserting a row would make the default pipeline of the name give way
	is_there := EXISTS (SELECT FROM @extschema@.spine_pipelines p WHERE p.name = spine_create_pipeline_as.name);
	BEGIN
		IF NOT is_there THEN
			INSERT INTO @extschema@.spine_pipelines (name, topic, owner, enabled, start, server)
			VALUES (name, topic, owner, coalesce(enabled, true), coalesce(start, 'earliest'), server);
		END IF;
	EXCEPTION
		WHEN unique_violation THEN
			is_there := true;
		WHEN check_violation THEN
			GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
			PERFORM @extschema@.spine_refuse_value(violated);
	END;
	IF is_there AND if_not_exists THEN
		RAISE NOTICE 'pipeline "%" already exists, skipping', name;
		RETURN;
	ELSIF is_there THEN
		RAISE EXCEPTION 'pipeline "%" already exists', name
			USING ERRCODE = 'duplicate_object';
	END IF;
	PERFORM @extschema@.spine_check_server(server, owner);
	IF target IS NOT NULL THEN
		PERFORM @extschema@.spine_add_sink_as(caller, name, target, mode, key, version, columns, filter);
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_create_pipeline_as(oid, name, text, regclass, text, name[], name, jsonb, text, name, text, regrole, boolean, boolean) IS
'part of spine_create_pipeline';
REVOKE ALL ON FUNCTION @extschema@.spine_create_pipeline_as(oid, name, text, regclass, text, name[], name, jsonb, text, name, text, regrole, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_create_pipeline(name name, topic text, target regclass DEFAULT NULL,
	mode text DEFAULT 'append', key name[] DEFAULT NULL, version name DEFAULT NULL,
	columns jsonb DEFAULT NULL, filter text DEFAULT NULL, server name DEFAULT NULL,
	start text DEFAULT 'earliest', owner regrole DEFAULT pg_catalog.quote_ident(current_user)::pg_catalog.regrole,
	enabled boolean DEFAULT true, if_not_exists boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_create_pipeline(name, text, regclass, text, name[], name, jsonb, text, name, text, regrole, boolean, boolean) IS
'let a topic be applied to a table; more tables with spine_add_sink';
REVOKE ALL ON FUNCTION @extschema@.spine_create_pipeline(name, text, regclass, text, name[], name, jsonb, text, name, text, regrole, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_alter_pipeline_as(caller oid, name name, changes jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	before		@extschema@.spine_pipelines := @extschema@.spine_lock_pipeline(caller, name);
	after		@extschema@.spine_pipelines;
	violated	text;
BEGIN
	after := jsonb_populate_record(before, @extschema@.spine_changes(changes, jsonb_build_object(
		'name', NULL, 'topic', NULL, 'server', NULL, 'start', 'earliest', 'owner', caller::regrole, 'enabled', true)));
	IF after.name IS NULL THEN
		RAISE EXCEPTION 'the name of a pipeline must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM @extschema@.spine_check_new_owner(caller, after.name, after.owner);
	-- foreign keys change them as the tables' owner
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	BEGIN
		UPDATE @extschema@.spine_pipelines p
		SET name = after.name, topic = after.topic, server = after.server, start = after.start,
			owner = after.owner, enabled = after.enabled
		WHERE p.name = before.name;
	EXCEPTION
		WHEN unique_violation THEN
			RAISE EXCEPTION 'pipeline "%" already exists', after.name
				USING ERRCODE = 'duplicate_object';
		WHEN check_violation THEN
			GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
			PERFORM @extschema@.spine_refuse_value(violated);
	END;
	IF (after.name, after.owner) IS DISTINCT FROM (before.name, before.owner) THEN
		PERFORM @extschema@.spine_check_triggers('@extschema@.spine_dead_letters'::regclass);
		UPDATE @extschema@.spine_dead_letters d
		SET pipeline = after.name, owner = after.owner
		WHERE d.pipeline = before.name AND d.owner = before.owner;
	END IF;
	-- to pause, or to rename, what has come to fail is allowed
	IF (after.topic, after.server, after.owner) IS DISTINCT FROM (before.topic, before.server, before.owner) THEN
		PERFORM @extschema@.spine_check_server(after.server, after.owner);
		PERFORM @extschema@.spine_check_pipeline_plan(after.name);
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_alter_pipeline_as(oid, name, jsonb) IS 'part of spine_alter_pipeline';
REVOKE ALL ON FUNCTION @extschema@.spine_alter_pipeline_as(oid, name, jsonb) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_alter_pipeline(name name, changes jsonb)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_alter_pipeline(name, jsonb) IS
'change arguments that a pipeline was made with, its name among them; null: back to the default';
GRANT EXECUTE ON FUNCTION @extschema@.spine_alter_pipeline(name, jsonb) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_drop_pipeline_as(caller oid, name name, if_exists boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF if_exists AND NOT EXISTS (SELECT FROM @extschema@.spine_pipelines p WHERE p.name = spine_drop_pipeline_as.name) THEN
		RAISE NOTICE 'pipeline "%" does not exist, skipping', name;
		RETURN;
	END IF;
	PERFORM @extschema@.spine_lock_pipeline(caller, name);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	DELETE FROM @extschema@.spine_pipelines p WHERE p.name = spine_drop_pipeline_as.name;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_drop_pipeline_as(oid, name, boolean) IS 'part of spine_drop_pipeline';
REVOKE ALL ON FUNCTION @extschema@.spine_drop_pipeline_as(oid, name, boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_drop_pipeline(name name, if_exists boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_drop_pipeline(name, boolean) IS
'forget a pipeline, its sinks and its positions; the tables and the dead letters stay';
GRANT EXECUTE ON FUNCTION @extschema@.spine_drop_pipeline(name, boolean) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_show_sink(sink @extschema@.spine_sinks)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format(', target => %L', (SELECT format('%I.%I', n.nspname, c.relname)
									 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
									 WHERE c.oid = sink.target))
		|| CASE sink.mode WHEN 'append' THEN '' ELSE format(', mode => %L', sink.mode) END
		|| CASE WHEN sink.key IS NULL THEN '' ELSE format(', key => %L', sink.key) END
		|| CASE WHEN sink.version IS NULL THEN '' ELSE format(', version => %L', sink.version) END
		|| CASE WHEN sink.columns IS NULL THEN '' ELSE format(', columns => %L', sink.columns) END
		|| CASE WHEN sink.filter IS NULL THEN '' ELSE format(', filter => %L', sink.filter) END
$$;
COMMENT ON FUNCTION @extschema@.spine_show_sink(@extschema@.spine_sinks) IS 'part of spine_show_pipeline';
GRANT EXECUTE ON FUNCTION @extschema@.spine_show_sink(@extschema@.spine_sinks) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_show_pipeline(name name)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	of_pipeline	@extschema@.spine_pipelines;
	sinks		text[];		-- their arguments
BEGIN
	SELECT *
	INTO of_pipeline
	FROM @extschema@.spine_pipelines p
	WHERE p.name = spine_show_pipeline.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', name
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
	sinks := ARRAY(SELECT @extschema@.spine_show_sink(s)
				   FROM @extschema@.spine_sinks s
				   WHERE s.pipeline = spine_show_pipeline.name
				   ORDER BY s.ordinal, s.mode, s.target);
	RETURN 'SELECT @extschema@.spine_create_pipeline'
		|| format('(%L, %L', name, of_pipeline.topic)
		|| coalesce(sinks[1], '')
		|| CASE WHEN of_pipeline.server IS NULL THEN '' ELSE format(', server => %L', of_pipeline.server) END
		|| CASE of_pipeline.start WHEN 'earliest' THEN '' ELSE format(', start => %L', of_pipeline.start) END
		|| CASE of_pipeline.owner WHEN quote_ident(current_user)::regrole THEN '' ELSE format(', owner => %L', of_pipeline.owner) END
		|| CASE WHEN of_pipeline.enabled THEN '' ELSE ', enabled => false' END
		|| ');'
		|| coalesce((SELECT string_agg(E'\nSELECT @extschema@.spine_add_sink' || format('(%L%s);', name, s.sink), '' ORDER BY s.i)
					 FROM unnest(sinks[2:]) WITH ORDINALITY AS s (sink, i)), '');
END
$$;
COMMENT ON FUNCTION @extschema@.spine_show_pipeline(name) IS
'the statements that make a pipeline again; the owner is left out when that is the current user';
GRANT EXECUTE ON FUNCTION @extschema@.spine_show_pipeline(name) TO PUBLIC;
