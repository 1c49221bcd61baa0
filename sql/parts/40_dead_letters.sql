--
-- Dead letters: records that could not be applied
--

CREATE TABLE @extschema@.spine_dead_letters (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	pipeline		name NOT NULL,
	topic			text NOT NULL,
	kafka_partition	integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	key				bytea,
	value			bytea,
	headers			bytea[],
	record_time		timestamptz,
	sqlstate		text NOT NULL,
	reason			text NOT NULL,
	failed_at		timestamptz NOT NULL DEFAULT now(),
	owner			regrole
);
COMMENT ON TABLE @extschema@.spine_dead_letters IS
'records that could not be applied, with their exact bytes and the reason';
COMMENT ON COLUMN @extschema@.spine_dead_letters.headers IS
'the record''s headers as {{name, value}, ...}';
COMMENT ON COLUMN @extschema@.spine_dead_letters.owner IS
'the pipeline''s owner, whose members see the row; NULL: that is not known';

-- The owner is kept with the record: another role may make a pipeline of this name later.
CREATE FUNCTION @extschema@.spine_own_dead_letter()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NEW.owner IS NULL THEN
		SELECT p.owner
		INTO NEW.owner
		FROM @extschema@.spine_pipelines p
		WHERE p.name = NEW.pipeline;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_own_dead_letter() IS
'notes the pipeline''s owner in each dead letter';
REVOKE ALL ON FUNCTION @extschema@.spine_own_dead_letter() FROM PUBLIC;

CREATE TRIGGER spine_own_dead_letter
	BEFORE INSERT ON @extschema@.spine_dead_letters
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_own_dead_letter();

-- The bytes of records are for those who may act as the owner, and for those who may
-- read all tables.
ALTER TABLE @extschema@.spine_dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY spine_members ON @extschema@.spine_dead_letters
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_read_all_data', 'USAGE'));
GRANT SELECT ON @extschema@.spine_dead_letters TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters_id_seq', '');
