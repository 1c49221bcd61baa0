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
	failed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE @extschema@.spine_dead_letters IS
'records that could not be applied, with their exact bytes and the reason';
COMMENT ON COLUMN @extschema@.spine_dead_letters.headers IS
'the record''s headers as {{name, value}, ...}';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters_id_seq', '');
