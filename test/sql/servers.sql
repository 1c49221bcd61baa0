-- Servers: Kafka clusters, declared with PostgreSQL's own statements
SET client_min_messages = warning;
CREATE EXTENSION spine;

-- a cluster, and what a role logs in with
CREATE ROLE regress_ingest;
CREATE SERVER main FOREIGN DATA WRAPPER spine_kafka
	OPTIONS (brokers 'b1:9092,b2:9092', "security.protocol" 'SASL_SSL', "sasl.mechanism" 'SCRAM-SHA-512');
CREATE USER MAPPING FOR regress_ingest SERVER main OPTIONS (user 'spine', password 'it''s, secret');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (SET password 'another', ADD "ssl.key.pem" 'a key');
SELECT srvname, srvoptions FROM pg_foreign_server;

-- every role can read the options of a server
ALTER SERVER main OPTIONS (ADD password 'secret');
ALTER SERVER main OPTIONS (ADD "sasl.password" 'secret');
ALTER SERVER main OPTIONS (ADD "ssl.key.pem" 'secret');
ALTER SERVER main OPTIONS (ADD "sasl.oauthbearer.client.secret" 'secret');
ALTER SERVER main OPTIONS (ADD password_required 'false');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (ADD brokers 'b3:9092');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (ADD "linger.ms" '5');

-- what is not an option, or not here
ALTER SERVER main OPTIONS (ADD "sasl.mechansim" 'PLAIN');
ALTER SERVER main OPTIONS (ADD "bootstrap.servers" 'b3:9092');
ALTER SERVER main OPTIONS (ADD nonsense 'x');
ALTER SERVER main OPTIONS (ADD "plugin.library.paths" '/tmp/evil.so');
ALTER SERVER main OPTIONS (ADD "isolation.level" 'read_uncommitted');
ALTER SERVER main OPTIONS (ADD "enable.sasl.oauthbearer.unsecure.jwt" 'true');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (ADD "sasl.username" 'spine');
ALTER FOREIGN DATA WRAPPER spine_kafka OPTIONS (ADD brokers 'b1:9092');

-- values
ALTER SERVER main OPTIONS (SET brokers '');
ALTER SERVER main OPTIONS (SET brokers ' , ');
ALTER SERVER main OPTIONS (SET "security.protocol" 'sasl');
ALTER SERVER main OPTIONS (ADD "socket.timeout.ms" 'soon');
ALTER SERVER main OPTIONS (ADD "client.id" '');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (SET password '');
ALTER USER MAPPING FOR regress_ingest SERVER main OPTIONS (ADD password_required 'perhaps');

-- files
GRANT USAGE ON FOREIGN DATA WRAPPER spine_kafka TO regress_ingest;
SET ROLE regress_ingest;
CREATE SERVER mine FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers 'b1:9092', "ssl.ca.location" '/etc/passwd');
CREATE SERVER mine FOREIGN DATA WRAPPER spine_kafka OPTIONS (brokers 'b1:9092');
CREATE USER MAPPING FOR regress_ingest SERVER mine OPTIONS (password_required 'false');
RESET ROLE;
ALTER SERVER mine OPTIONS (ADD "ssl.ca.location" '/etc/ssl/ca.pem');

-- a pipeline names the server, and keeps it
SELECT spine_check_server('nowhere', 'regress_ingest');
SELECT spine_check_server('main', 'regress_ingest');
SELECT spine_check_server('mine', 'regress_ingest');
\set SHOW_CONTEXT never
SELECT spine_create_pipeline('a', 'a', server => 'nowhere');
INSERT INTO spine_pipelines (name, topic, server, enabled) VALUES ('a', 'a', 'main', false), ('b', 'b', 'main', false);
DROP SERVER main CASCADE;
ALTER SERVER main RENAME TO prime;
DELETE FROM spine_pipelines WHERE server = 'main';
DROP SERVER main CASCADE;

-- nobody sends unless allowed
SELECT proname, pg_get_function_identity_arguments(oid), has_function_privilege('regress_ingest', oid, 'EXECUTE')
FROM pg_proc WHERE proname IN ('spine_send', 'spine_produce') ORDER BY 1, 2;

DROP SERVER mine CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER spine_kafka FROM regress_ingest;
DROP ROLE regress_ingest;
DROP EXTENSION spine CASCADE;
