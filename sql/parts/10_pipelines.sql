--
-- The catalog: pipelines and their sinks, and who may change them
--

CREATE TABLE @extschema@.spine_pipelines (
	name		name PRIMARY KEY CHECK (name <> ''),
	topic		text CHECK (topic ~ '^\^.' AND '' ~ topic IS NOT NULL OR topic ~ '^[A-Za-z0-9._-]{1,249}( *, *[A-Za-z0-9._-]{1,249})*$' AND NOT regexp_split_to_array(topic, ' *, *') && '{.,..}'),
	owner		regrole NOT NULL DEFAULT quote_ident(current_user)::regrole,
	enabled		boolean NOT NULL DEFAULT true,
	start		text NOT NULL DEFAULT 'earliest' CHECK (start IN ('earliest', 'latest')),
	is_default	boolean NOT NULL DEFAULT false,
	server		name
);
COMMENT ON TABLE @extschema@.spine_pipelines IS 'the topic that each pipeline reads, and the role that it applies records as';
COMMENT ON COLUMN @extschema@.spine_pipelines.topic IS
'a topic, several with commas between them, or a regular expression that begins with ^; NULL: the setting spine.topic';
COMMENT ON COLUMN @extschema@.spine_pipelines.owner IS 'the role whose rights the pipeline applies with';
COMMENT ON COLUMN @extschema@.spine_pipelines.enabled IS 'false: paused';
COMMENT ON COLUMN @extschema@.spine_pipelines.start IS
'where to begin on a topic never read before: earliest or latest';
COMMENT ON COLUMN @extschema@.spine_pipelines.is_default IS
'made by CREATE EXTENSION; a restored pipeline of the same name takes its place';
COMMENT ON COLUMN @extschema@.spine_pipelines.server IS
'the Kafka cluster, as CREATE SERVER has declared it; NULL: spine.brokers, or the embedded broker';

CREATE TABLE @extschema@.spine_sinks (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	target		regclass NOT NULL,
	mode		text NOT NULL CHECK (mode IN ('append', 'upsert')),
	key			name[] CHECK (array_position(key, NULL) IS NULL AND cardinality(key) > 0),
	version		name,
	columns		jsonb CHECK (jsonb_typeof(columns) = 'object' AND columns <> '{}'),
	ordinal		integer NOT NULL,
	filter		text,
	PRIMARY KEY (pipeline, target),
	CHECK (mode = 'upsert' OR version IS NULL)
);
COMMENT ON TABLE @extschema@.spine_sinks IS 'the target tables of each pipeline';
COMMENT ON COLUMN @extschema@.spine_sinks.mode IS 'append: a row per event; upsert: a row per key';
COMMENT ON COLUMN @extschema@.spine_sinks.key IS
'columns of a unique index; append: a row that is there already is left alone; upsert: NULL means the primary key';
COMMENT ON COLUMN @extschema@.spine_sinks.version IS
'upsert: the column that decides which of two events for a key is newer; NULL: the later one in the log';
COMMENT ON COLUMN @extschema@.spine_sinks.columns IS
'column -> source; NULL: each column, from the key of the same name';
COMMENT ON COLUMN @extschema@.spine_sinks.ordinal IS
'the sinks of a pipeline are applied in this order; when it is not given: after those that are there';
COMMENT ON COLUMN @extschema@.spine_sinks.filter IS
'an SQL condition on the record; a record for which it is not true is left out; NULL: none';

GRANT SELECT ON @extschema@.spine_pipelines, @extschema@.spine_sinks TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_sinks', '');

CREATE FUNCTION @extschema@.spine_pipeline_topic(topic text)
RETURNS text
AS 'MODULE_PATHNAME', 'spine_pipeline_topic'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_topic(text) IS
'the topic that a pipeline reads, given the topic in its row: NULL stands for the setting spine.topic';

CREATE FUNCTION @extschema@.spine_topic_matches(topic text, topics text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_topic_matches'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_topic_matches(text, text) IS
'whether a topic is one of those that a pipeline reads, given what spine_pipeline_topic says of it';

CREATE FUNCTION @extschema@.spine_partition_worker(pipeline name, topics text, topic text, partition integer, workers integer)
RETURNS integer
AS 'MODULE_PATHNAME', 'spine_partition_worker'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_partition_worker(name, text, text, integer, integer) IS
'the number of the worker that reads a partition of a pipeline now, given what spine_pipeline_topic says of the pipeline';

-- Some of the functions below change spine's own tables with the rights of the
-- functions' owner.  A trigger that another role has made on such a table would run with
-- these rights too, so the functions look for one first.
CREATE FUNCTION @extschema@.spine_check_triggers(of_table regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_triggers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_triggers(regclass) IS
'raises an error when one of spine''s own tables has a trigger that is not spine''s';

-- A pipeline, its sinks and its positions may be changed by roles that can SET ROLE to
-- the pipeline's owner (before PostgreSQL 16, every member can), and by the owner of the
-- table, as whom foreign keys act.
CREATE FUNCTION @extschema@.spine_may_change(of_owner regrole, of_table oid,
	by_role regrole DEFAULT pg_catalog.quote_ident(current_user)::pg_catalog.regrole)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(pg_has_role(by_role, of_owner::oid, r.option) OR pg_has_role(by_role, c.relowner, r.option), false)
	FROM pg_class c,
		 (SELECT CASE WHEN current_setting('server_version_num')::integer < 160000
					  THEN 'MEMBER' ELSE 'SET' END AS option) r
	WHERE c.oid = of_table
$$;
COMMENT ON FUNCTION @extschema@.spine_may_change(regrole, oid, regrole) IS
'whether the current user, or another role, may change what belongs to a pipeline of this owner, in this table of the catalog';
GRANT EXECUTE ON FUNCTION @extschema@.spine_may_change(regrole, oid, regrole) TO PUBLIC;

-- Runs before each change of a row of spine_pipelines.  No role takes over another
-- role's pipeline, or makes a pipeline apply as another role.  A dump can be restored
-- although CREATE EXTENSION has already made the default pipeline: that one gives way
-- as long as it has no positions.
CREATE FUNCTION @extschema@.spine_check_pipeline()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		IF NOT @extschema@.spine_may_change(OLD.owner, TG_RELID) THEN
			RAISE EXCEPTION 'must be a member of role % to change pipeline "%"', OLD.owner, OLD.name
				USING ERRCODE = 'insufficient_privilege',
					  HINT = 'You must be able to SET ROLE to that role.';
		END IF;
		-- foreign keys change these tables as the tables' owner
		PERFORM @extschema@.spine_check_triggers('@extschema@.spine_sinks'::regclass);
		PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	END IF;
	IF TG_OP = 'DELETE' THEN
		RETURN OLD;
	END IF;

	IF NOT @extschema@.spine_may_change(NEW.owner, TG_RELID) THEN
		RAISE EXCEPTION 'must be a member of role % to make it the owner of pipeline "%"', NEW.owner, NEW.name
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'You must be able to SET ROLE to that role.';
	END IF;
	-- looked for first: a role that may insert here need not have the right to delete
	IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM @extschema@.spine_pipelines p
									WHERE p.name = NEW.name AND p.is_default) THEN
		DELETE FROM @extschema@.spine_pipelines p
		WHERE p.name = NEW.name AND p.is_default
			AND NOT EXISTS (SELECT FROM @extschema@.spine_offsets o WHERE o.pipeline = p.name);
	END IF;
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_pipeline() FROM PUBLIC;

CREATE TRIGGER spine_check_pipeline
	BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.spine_pipelines
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_pipeline();

-- The same for sinks and positions: spine writes to a sink with the rights of the
-- pipeline's owner, and a position that is moved can lose records.
CREATE FUNCTION @extschema@.spine_check_member()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	names		name[];		-- NULL: all pipelines
	of_another	name;
BEGIN
	IF TG_OP <> 'TRUNCATE' THEN
		names := ARRAY[OLD.pipeline, NEW.pipeline];
	END IF;
	SELECT p.name
	INTO of_another
	FROM @extschema@.spine_pipelines p
	WHERE (names IS NULL OR p.name = ANY (names))
		AND NOT @extschema@.spine_may_change(p.owner, TG_RELID)
	ORDER BY 1
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'must be a member of the role that pipeline "%" applies as', of_another
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'You must be able to SET ROLE to that role.';
	END IF;
	IF TG_OP = 'DELETE' THEN
		RETURN OLD;
	END IF;
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_member() FROM PUBLIC;

CREATE TRIGGER spine_check_member
	BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.spine_sinks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_member();
CREATE TRIGGER spine_check_truncate
	BEFORE TRUNCATE ON @extschema@.spine_sinks
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_check_member();
CREATE TRIGGER spine_check_truncate
	BEFORE TRUNCATE ON @extschema@.spine_pipelines
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_check_member();

-- What is wrong with a sink is said when it is written down.  What may change later, such as
-- the columns of its table, is looked at by the worker.
CREATE FUNCTION @extschema@.spine_check_mapping(columns jsonb)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_mapping'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_check_mapping(jsonb) IS
'raises an error when this is no mapping: an unknown source, a path that is none, and the like';

CREATE FUNCTION @extschema@.spine_check_target(target regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_target'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_check_target(regclass) IS
'raises an error when this can be no target: it is neither a table nor a view that PostgreSQL itself can insert into';

-- A crash empties an unlogged table, and the position would still say that its rows
-- are applied.  A temporary table is gone with its session.
CREATE FUNCTION @extschema@.spine_check_sink()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	fleeting	record;
BEGIN
	SELECT c.oid::regclass AS name,
		   CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'temporary' END AS kind
	INTO fleeting
	FROM pg_class c
	WHERE c.oid IN (SELECT NEW.target UNION SELECT t.relid FROM pg_partition_tree(NEW.target) t)
		AND c.relpersistence <> 'p'
	ORDER BY 1
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'table % is % and cannot be a target: it would lose rows that the pipeline does not read again',
				fleeting.name, fleeting.kind
			USING ERRCODE = 'wrong_object_type',
				  HINT = CASE fleeting.kind WHEN 'unlogged'
							  THEN format('Use ALTER TABLE %s SET LOGGED.', fleeting.name)
							  ELSE 'Use a permanent table.' END;
	END IF;
	PERFORM @extschema@.spine_check_target(NEW.target);
	PERFORM @extschema@.spine_check_mapping(NEW.columns);
	IF NEW.ordinal IS NULL THEN
		SELECT coalesce(max(s.ordinal), 0) + 1
		INTO NEW.ordinal
		FROM @extschema@.spine_sinks s
		WHERE s.pipeline = NEW.pipeline;
	END IF;
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_sink() FROM PUBLIC;

CREATE TRIGGER spine_check_sink
	BEFORE INSERT OR UPDATE OF target, columns ON @extschema@.spine_sinks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_sink();

-- Tells the launcher and the workers when the change is committed.
CREATE FUNCTION @extschema@.spine_catalog_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'spine_catalog_changed'
LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.spine_catalog_changed() FROM PUBLIC;

CREATE TRIGGER spine_catalog_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.spine_pipelines
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_catalog_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.spine_sinks
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();
