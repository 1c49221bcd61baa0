--
-- The catalog: pipelines and their sinks, and who may change them
--

CREATE TABLE @extschema@.spine_pipelines (
	name		name PRIMARY KEY CHECK (name <> ''),
	topic		text CHECK (topic ~ '^[A-Za-z0-9._-]{1,249}$' AND topic NOT IN ('.', '..')),
	owner		regrole NOT NULL DEFAULT quote_ident(current_user)::regrole,
	enabled		boolean NOT NULL DEFAULT true,
	start		text NOT NULL DEFAULT 'earliest' CHECK (start IN ('earliest', 'latest')),
	is_default	boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE @extschema@.spine_pipelines IS 'one topic each, and who applies it';
COMMENT ON COLUMN @extschema@.spine_pipelines.topic IS 'NULL: the setting spine.topic';
COMMENT ON COLUMN @extschema@.spine_pipelines.owner IS 'the role whose rights the pipeline applies with';
COMMENT ON COLUMN @extschema@.spine_pipelines.enabled IS 'false: paused';
COMMENT ON COLUMN @extschema@.spine_pipelines.start IS
'where to begin on a topic never read before: earliest or latest';
COMMENT ON COLUMN @extschema@.spine_pipelines.is_default IS
'made by CREATE EXTENSION; a restored pipeline of the same name takes its place';

CREATE TABLE @extschema@.spine_sinks (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	target		regclass NOT NULL,
	mode		text NOT NULL CHECK (mode IN ('append', 'upsert')),
	key			name[] CHECK (array_position(key, NULL) IS NULL AND cardinality(key) > 0),
	version		name,
	columns		jsonb CHECK (jsonb_typeof(columns) = 'object' AND columns <> '{}'),
	PRIMARY KEY (pipeline, target),
	CHECK (CASE mode WHEN 'upsert' THEN key IS NOT NULL AND version IS NOT NULL
					 WHEN 'append' THEN version IS NULL END)
);
COMMENT ON TABLE @extschema@.spine_sinks IS 'the target tables of each pipeline';
COMMENT ON COLUMN @extschema@.spine_sinks.mode IS 'append: a row per event; upsert: a row per key';
COMMENT ON COLUMN @extschema@.spine_sinks.key IS
'columns of a unique index; append: a row that is there already is left alone';
COMMENT ON COLUMN @extschema@.spine_sinks.version IS
'upsert: the column that decides which of two events for a key is newer';
COMMENT ON COLUMN @extschema@.spine_sinks.columns IS
'column -> JSON key, or $partition, $offset, $timestamp, $key; NULL: every column, from the key of its name';

GRANT SELECT ON @extschema@.spine_pipelines, @extschema@.spine_sinks TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_sinks', '');

CREATE FUNCTION @extschema@.spine_pipeline_topic(topic text)
RETURNS text
AS 'MODULE_PATHNAME', 'spine_pipeline_topic'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_topic(text) IS
'the topic that a pipeline reads, given the topic in its row: NULL stands for the setting spine.topic';

-- What follows changes tables of spine's with its owner's rights.  Whoever has the
-- privilege TRIGGER on one of them must not get these.
CREATE FUNCTION @extschema@.spine_check_triggers(of_table regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_triggers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_triggers(regclass) IS
'an error when a table of spine''s own has a trigger that is not';

-- Who may do what here: a pipeline, its sinks and its positions belong to who may
-- take the role of its owner (until PostgreSQL 15, every member may), and to the
-- table's owner, as whom foreign keys act.
CREATE FUNCTION @extschema@.spine_may_change(of_owner regrole, of_table oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(pg_has_role(of_owner::oid, r.option) OR pg_has_role(c.relowner, r.option), false)
	FROM pg_class c,
		 (SELECT CASE WHEN current_setting('server_version_num')::integer < 160000
					  THEN 'MEMBER' ELSE 'SET' END AS option) r
	WHERE c.oid = of_table
$$;
COMMENT ON FUNCTION @extschema@.spine_may_change(regrole, oid) IS
'may the current user change what belongs to a pipeline of that owner, in a table of the catalog?';

-- Fires before each row of spine_pipelines: nobody takes over a pipeline of
-- another's or lets one run as another, and a dump can be restored although
-- CREATE EXTENSION has already made the default pipeline (which nothing has been
-- read for yet).
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
					  HINT = 'What counts is to be able to SET ROLE to it.';
		END IF;
		-- what a foreign key does to these, it does as their owner
		PERFORM @extschema@.spine_check_triggers('@extschema@.spine_sinks'::regclass);
		PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	END IF;
	IF TG_OP = 'DELETE' THEN
		RETURN OLD;
	END IF;

	IF NOT @extschema@.spine_may_change(NEW.owner, TG_RELID) THEN
		RAISE EXCEPTION 'must be a member of role % to let pipeline "%" apply as it', NEW.owner, NEW.name
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'What counts is to be able to SET ROLE to it.';
	END IF;
	-- looked for first: INSERT on the table is no right to delete from it
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

-- The same for what belongs to a pipeline: a sink is written to with the rights of
-- its owner, and a position says what is lost.
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
				  HINT = 'What counts is to be able to SET ROLE to it.';
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

-- A table that a crash empties would lose what the position says it has.
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
	RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION @extschema@.spine_check_sink() FROM PUBLIC;

CREATE TRIGGER spine_check_sink
	BEFORE INSERT OR UPDATE OF target ON @extschema@.spine_sinks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_sink();

-- Tells the launcher and the workers, once the change is committed.
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
