--
-- Servers: Kafka clusters, declared with PostgreSQL's own statements
--

CREATE FUNCTION @extschema@.spine_kafka_validator(options text[], catalog oid)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_kafka_validator'
LANGUAGE C STRICT;
COMMENT ON FUNCTION @extschema@.spine_kafka_validator(text[], oid) IS
'the options that a server of spine_kafka and its user mappings may have';

CREATE FOREIGN DATA WRAPPER spine_kafka
	VALIDATOR @extschema@.spine_kafka_validator;
COMMENT ON FOREIGN DATA WRAPPER spine_kafka IS
'Kafka clusters that pipelines read; for CREATE SERVER and CREATE USER MAPPING, not for foreign tables';

CREATE FUNCTION @extschema@.spine_check_server(server name, for_role regrole)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_server'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_server(name, regrole) IS
'raises an error when there is no such Kafka cluster, or the role may not use it; it stays until the transaction ends';
REVOKE ALL ON FUNCTION @extschema@.spine_check_server(name, regrole) FROM PUBLIC;
