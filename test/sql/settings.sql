--
-- The spine.* settings: who can set them, how, and what is refused
--

-- All settings.  "sighup": for the whole server, in a configuration file or by
-- ALTER SYSTEM.  "superuser": also by ALTER DATABASE, or by SET in a session.
SELECT name, context, vartype, unit, min_val, max_val, boot_val
FROM pg_settings WHERE name LIKE 'spine.%' ORDER BY name COLLATE "C";
SELECT name, short_desc, extra_desc
FROM pg_settings WHERE name LIKE 'spine.%' ORDER BY name COLLATE "C";

-- A name with a typo is an error.
SET spine.batch_row = 1;
SET spine.typo = 1;

--
-- Server settings cannot be set in a session
--
SET spine.brokers = 'localhost:9092';
SET spine.kafka_options = '';
SET spine.producer_rate = 1;
SET spine.producer_tenants = 'acme';

--
-- The others can be set in a session, and are checked at once
--
BEGIN;
SET LOCAL spine.topic = 'orders.v2_eu-west';
SHOW spine.topic;
SET LOCAL spine.enabled = off;
SHOW spine.enabled;
SET LOCAL spine.workers = 3;
SHOW spine.workers;
SET LOCAL spine.batch_rows = 1000;
SHOW spine.batch_rows;
SET LOCAL spine.batch_interval = '2s';
SHOW spine.batch_interval;
SET LOCAL spine.max_record_memory = '1GB';
SHOW spine.max_record_memory;
SET LOCAL spine.log_interval = '1min';
SHOW spine.log_interval;
SET LOCAL spine.log_interval = -1;
SHOW spine.log_interval;
COMMIT;

SET spine.topic = '';
SET spine.topic = 'no spaces';
SET spine.topic = '..';
SELECT set_config('spine.topic', repeat('x', 250), false);
SET spine.enabled = maybe;
SET spine.workers = 0;
SET spine.workers = 33;
SET spine.batch_rows = 0;
-- (PostgreSQL words these errors differently in each version.)
\set VERBOSITY sqlstate
SET spine.batch_interval = -1;
SET spine.batch_interval = '1min';
SET spine.max_record_memory = '1kB';
SET spine.log_interval = -2;
\set VERBOSITY default

--
-- ALTER SYSTEM checks server settings.  None of these values is accepted, so
-- nothing changes.
--
ALTER SYSTEM SET spine.producer_rate = -1;
ALTER SYSTEM SET spine.producer_rate = 'fast';
ALTER SYSTEM SET spine.producer_tenants = '"acme';

-- an unknown option of librdkafka, and bad values of known ones
ALTER SYSTEM SET spine.kafka_options = 'security.protocoll=ssl';
ALTER SYSTEM SET spine.kafka_options = 'security.protocol=magic';
ALTER SYSTEM SET spine.kafka_options = 'client.id=ok linger.ms=-1';
-- a value may be a secret, so no error repeats it
ALTER SYSTEM SET spine.kafka_options = 'sasl.password=secret, sasl.mechanism=';
ALTER SYSTEM SET spine.kafka_options = 'socket.timeout.ms=secret';
-- syntax
ALTER SYSTEM SET spine.kafka_options = 'linger.ms';
ALTER SYSTEM SET spine.kafka_options = '=5';
ALTER SYSTEM SET spine.kafka_options = 'linger.ms = 5';
ALTER SYSTEM SET spine.kafka_options = 'client.id=''never closed';
ALTER SYSTEM SET spine.kafka_options = 'client.id=''closed''too soon';
ALTER SYSTEM SET spine.kafka_options = 'client.id=a client.id=';
ALTER SYSTEM SET spine.kafka_options = E'client.id=''a\nb''';
ALTER SYSTEM SET spine.kafka_options = 'sasl.password=it is secret';
-- options that the promises depend on cannot be set
ALTER SYSTEM SET spine.kafka_options = 'enable.auto.commit=true';
ALTER SYSTEM SET spine.kafka_options = 'auto.offset.reset=latest';
ALTER SYSTEM SET spine.kafka_options = 'bootstrap.servers=elsewhere:9092';
ALTER SYSTEM SET spine.kafka_options = 'metadata.broker.list=elsewhere:9092';
ALTER SYSTEM SET spine.kafka_options = 'transactional.id=x';
ALTER SYSTEM SET spine.kafka_options = 'enable.idempotence=false';
ALTER SYSTEM SET spine.kafka_options = 'log.queue=false';
ALTER SYSTEM SET spine.kafka_options = 'delivery.report.only.error=true';
-- nor can options that run foreign code in the server
ALTER SYSTEM SET spine.kafka_options = 'plugin.library.paths=/tmp/evil.so';
ALTER SYSTEM SET spine.kafka_options = 'sasl.kerberos.kinit.cmd=/tmp/evil.sh';
ALTER SYSTEM SET spine.kafka_options = 'ssl.engine.location=/tmp/evil.so';
ALTER SYSTEM SET spine.kafka_options = 'ssl.providers=evil';
ALTER SYSTEM SET spine.kafka_options = 'sasl.kerberos.principal=$(id)';
ALTER SYSTEM SET spine.kafka_options = 'internal.termination.signal=15';
-- nor any other option that is not known to be harmless
ALTER SYSTEM SET spine.kafka_options = 'isolation.level=read_uncommitted';
ALTER SYSTEM SET spine.kafka_options = 'statistics.interval.ms=1';
ALTER SYSTEM SET spine.kafka_options = 'request.required.acks=0';
ALTER SYSTEM SET spine.kafka_options = 'session.timeout.ms=1';
-- an allowed option with an unknown value; an old librdkafka may not know the option
\set VERBOSITY sqlstate
ALTER SYSTEM SET spine.kafka_options = 'client.dns.lookup=no_such_way';
\set VERBOSITY default
