--
-- Sending a record
--

CREATE TYPE @extschema@.spine_token AS (
	topic		text,
	partition	integer,
	"offset"	bigint
);
COMMENT ON TYPE @extschema@.spine_token IS 'where a record is in the log';

-- A quoted value, which has no type yet, is a text.
CREATE FUNCTION @extschema@.spine_send(topic text, key text, value text, headers jsonb DEFAULT NULL,
	partition integer DEFAULT NULL, server name DEFAULT NULL)
RETURNS @extschema@.spine_token
AS 'MODULE_PATHNAME', 'spine_send_text'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_send(text, text, text, jsonb, integer, name) IS
'send a record, and wait until the broker has acknowledged it; not undone by ROLLBACK';
REVOKE ALL ON FUNCTION @extschema@.spine_send(text, text, text, jsonb, integer, name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_send(topic text, key text, value jsonb, headers jsonb DEFAULT NULL,
	partition integer DEFAULT NULL, server name DEFAULT NULL)
RETURNS @extschema@.spine_token
AS 'MODULE_PATHNAME', 'spine_send_jsonb'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_send(text, text, jsonb, jsonb, integer, name) IS
'the same, with a JSON value';
REVOKE ALL ON FUNCTION @extschema@.spine_send(text, text, jsonb, jsonb, integer, name) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_send(topic text, key bytea, value bytea, headers jsonb DEFAULT NULL,
	partition integer DEFAULT NULL, server name DEFAULT NULL)
RETURNS @extschema@.spine_token
AS 'MODULE_PATHNAME', 'spine_send_bytea'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_send(text, bytea, bytea, jsonb, integer, name) IS
'the same, with exactly these bytes';
REVOKE ALL ON FUNCTION @extschema@.spine_send(text, bytea, bytea, jsonb, integer, name) FROM PUBLIC;
