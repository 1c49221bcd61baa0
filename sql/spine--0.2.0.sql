/*
 * spine 0.2.0: what CREATE EXTENSION makes.
 *
 * Ordered as a user meets it: the two tables that orders arrive in; the
 * functions to try it with; what is going on; the catalog that says which
 * topic goes where; the bookkeeping.
 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION spine" to load this file. \quit

-- Others may create in the schema: no operator or function of theirs is taken for one
-- of PostgreSQL's.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- 1. Orders: the targets of the default pipeline
--

-- Keys are COLLATE "C": equality is all that is asked of them, it compares
-- fastest, and no locale upgrade can break the index.
CREATE TABLE @extschema@.events (
	tenant			text COLLATE "C" NOT NULL,
	event_id		uuid NOT NULL,
	event_type		text NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	amount_cents	bigint NOT NULL,
	event_time		timestamptz NOT NULL,
	kafka_partition	integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	applied_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant, event_time, event_id)
);
COMMENT ON TABLE @extschema@.events IS 'every order event, once';
COMMENT ON COLUMN @extschema@.events.kafka_partition IS 'the partition the event came from';
COMMENT ON COLUMN @extschema@.events.kafka_offset IS 'its offset in that partition';
COMMENT ON COLUMN @extschema@.events.applied_at IS 'start of the transaction that applied it';

-- fillfactor leaves room on each page so that updates stay HOT.
CREATE TABLE @extschema@.current_orders (
	tenant			text COLLATE "C" NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	status			text NOT NULL,
	amount_cents	bigint NOT NULL,
	currency		text NOT NULL DEFAULT 'USD',
	updated_at		timestamptz NOT NULL,
	PRIMARY KEY (tenant, order_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE @extschema@.current_orders IS 'the latest state of each order';
COMMENT ON COLUMN @extschema@.current_orders.status IS 'event_type of the newest event';
COMMENT ON COLUMN @extschema@.current_orders.updated_at IS 'event_time of the newest event';

-- Totals of current_orders, moved by triggers in the transaction that changes
-- it, so that reading them never means reading all orders.  Each session counts
-- in rows of its own: nobody who leaves a transaction open makes others wait
-- (unless it is a prepared one, whose session's number may be used again).
CREATE TABLE @extschema@.spine_order_totals (
	tenant			text COLLATE "C" NOT NULL,
	currency		text COLLATE "C" NOT NULL,
	status			text COLLATE "C" NOT NULL,
	session			integer NOT NULL,
	orders			bigint NOT NULL,
	amount_cents	numeric NOT NULL,
	newest			timestamptz NOT NULL,
	PRIMARY KEY (tenant, currency, status, session)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.spine_order_totals IS
'totals of current_orders, exact at every commit; the sum over the sessions is what counts';
COMMENT ON COLUMN @extschema@.spine_order_totals.session IS 'the number of the server''s session that counts here, see spine_session_number(); numbers are used again';
COMMENT ON COLUMN @extschema@.spine_order_totals.newest IS 'no order of this kind is newer';

-- What follows changes tables of spine's with its owner's rights.  Whoever has the
-- privilege TRIGGER on one of them must not get these.
CREATE FUNCTION @extschema@.spine_check_triggers(of_table regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_triggers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_triggers(regclass) IS
'an error when a table of spine''s own has a trigger that is not';

CREATE FUNCTION @extschema@.spine_session_number()
RETURNS integer
AS 'MODULE_PATHNAME', 'spine_session_number'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.spine_session_number() IS
'a number that no other session has at this time; one has several in turn, the same modulo 262144';

CREATE FUNCTION @extschema@.spine_session_adds_up()
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_session_adds_up'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.spine_session_adds_up() IS
'is it time for the session to add up its totals? part of spine_count_orders';
REVOKE ALL ON FUNCTION @extschema@.spine_session_adds_up() FROM PUBLIC;

-- As the extension's owner: who may change orders need not be allowed to change
-- the totals.
CREATE FUNCTION @extschema@.spine_count_orders()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- without its own table and its two names, it would take others' for them
	IF TG_RELID <> '@extschema@.current_orders'::regclass OR NOT EXISTS (
		SELECT FROM pg_trigger t
		WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
			AND t.tgname = CASE TG_OP WHEN 'INSERT' THEN 'spine_count_inserted'
									  WHEN 'UPDATE' THEN 'spine_count_updated'
									  WHEN 'DELETE' THEN 'spine_count_deleted'
									  ELSE 'spine_count_truncated' END
			AND (TG_OP NOT IN ('INSERT', 'UPDATE') OR t.tgnewtable = 'new_orders')
			AND (TG_OP NOT IN ('UPDATE', 'DELETE') OR t.tgoldtable = 'old_orders')) THEN
		RAISE EXCEPTION 'trigger "%" of table % is not one of spine''s own, which alone may run spine_count_orders',
				TG_NAME, TG_RELID::regclass
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'Drop the trigger.';
	END IF;
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_totals'::regclass);
	-- see spine_session_adds_up
	IF TG_OP <> 'TRUNCATE' AND @extschema@.spine_session_adds_up() THEN
		WITH mine AS (
			DELETE FROM @extschema@.spine_order_totals
			WHERE session > 262143 AND session % 262144 = @extschema@.spine_session_number()
			RETURNING *)
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT m.tenant, m.currency, m.status, @extschema@.spine_session_number(),
			   sum(m.orders), sum(m.amount_cents), max(m.newest)
		FROM mine m
		GROUP BY 1, 2, 3
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	END IF;

	IF TG_OP = 'INSERT' THEN
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT n.tenant, n.currency, n.status, @extschema@.spine_session_number(),
			   count(*), sum(n.amount_cents), max(n.updated_at)
		FROM new_orders n
		GROUP BY 1, 2, 3
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	ELSIF TG_OP = 'UPDATE' THEN
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT d.tenant, d.currency, d.status, @extschema@.spine_session_number(),
			   sum(d.orders), sum(d.orders * d.amount_cents::numeric), max(d.updated_at)
		FROM (
			SELECT tenant, currency, status, amount_cents, updated_at, 1 AS orders FROM new_orders
			UNION ALL
			SELECT tenant, currency, status, amount_cents, updated_at, -1 FROM old_orders
		) d
		GROUP BY 1, 2, 3
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT o.tenant, o.currency, o.status, @extschema@.spine_session_number(),
			   -count(*), -sum(o.amount_cents), max(o.updated_at)
		FROM old_orders o
		GROUP BY 1, 2, 3
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents;
	ELSE
		-- an older snapshot would not show all that there is to delete
		IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
			RAISE EXCEPTION 'cannot truncate current_orders in a transaction of isolation level %',
					current_setting('transaction_isolation')
				USING ERRCODE = 'feature_not_supported',
					  HINT = 'Do it in a transaction of level READ COMMITTED.';
		END IF;
		DELETE FROM @extschema@.spine_order_totals;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_count_orders() IS 'trigger of current_orders: moves spine_order_totals';
REVOKE ALL ON FUNCTION @extschema@.spine_count_orders() FROM PUBLIC;

CREATE TRIGGER spine_count_inserted AFTER INSERT ON @extschema@.current_orders
	REFERENCING NEW TABLE AS new_orders
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_count_orders();
CREATE TRIGGER spine_count_updated AFTER UPDATE ON @extschema@.current_orders
	REFERENCING OLD TABLE AS old_orders NEW TABLE AS new_orders
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_count_orders();
CREATE TRIGGER spine_count_deleted AFTER DELETE ON @extschema@.current_orders
	REFERENCING OLD TABLE AS old_orders
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_count_orders();
CREATE TRIGGER spine_count_truncated AFTER TRUNCATE ON @extschema@.current_orders
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_count_orders();

CREATE FUNCTION @extschema@.spine_recount_orders()
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- see spine_count_orders
	IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION 'cannot count orders anew in a transaction of isolation level %',
				current_setting('transaction_isolation')
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'Do it in a transaction of level READ COMMITTED.';
	END IF;
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_totals'::regclass);
	LOCK TABLE @extschema@.current_orders IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM @extschema@.spine_order_totals;
	INSERT INTO @extschema@.spine_order_totals
	SELECT tenant, currency, status, 0, count(*), sum(amount_cents), max(updated_at)
	FROM @extschema@.current_orders
	GROUP BY 1, 2, 3;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_recount_orders() IS
'count the totals anew: after current_orders was changed with its triggers disabled';
REVOKE ALL ON FUNCTION @extschema@.spine_recount_orders() FROM PUBLIC;

--
-- 2. Making events, and waiting for them
--

CREATE FUNCTION @extschema@.spine_produce(tenant text, n integer)
RETURNS bigint
AS 'MODULE_PATHNAME', 'spine_produce'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_produce(text, integer) IS
'send n synthetic order events of a tenant to the topic; returns how many the broker acknowledged';
REVOKE ALL ON FUNCTION @extschema@.spine_produce(text, integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_make_event(tenant text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'spine_make_event'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_make_event(text) IS
'one synthetic order event, as spine_produce would send it';

CREATE FUNCTION @extschema@.spine_wait(timeout interval DEFAULT '30s')
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_wait'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.spine_wait(interval) IS
'wait until everything that was on the topics when it was called is applied and visible; false on timeout';
REVOKE ALL ON FUNCTION @extschema@.spine_wait(interval) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_brokers()
RETURNS text
AS 'MODULE_PATHNAME', 'spine_brokers'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_brokers() IS
'the address that clients connect to: spine.brokers, or the embedded broker''s';
REVOKE ALL ON FUNCTION @extschema@.spine_brokers() FROM PUBLIC;

--
-- 3. The catalog: pipelines and their sinks
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

--
-- 4. Bookkeeping: positions, and records that could not be applied
--

CREATE TABLE @extschema@.spine_offsets (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	topic		text NOT NULL,
	partition	integer NOT NULL CHECK (partition >= 0),
	next_offset	bigint NOT NULL CHECK (next_offset >= 0),
	cluster_id	text NOT NULL,
	updated_at	timestamptz NOT NULL DEFAULT now(),
	worker_next_offset	bigint,
	mark_offset	bigint CHECK (mark_offset >= 0),
	mark_crc	bigint,
	PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.spine_offsets IS
'the position of each partition, written in the transaction that applied what is before it';
COMMENT ON COLUMN @extschema@.spine_offsets.next_offset IS 'the first offset not yet applied';
COMMENT ON COLUMN @extschema@.spine_offsets.cluster_id IS 'the broker cluster that the position belongs to';
COMMENT ON COLUMN @extschema@.spine_offsets.worker_next_offset IS
'next_offset as a worker wrote it last; where they differ, it was moved by hand, and the mark means nothing';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_offset IS
'the last record before next_offset: looked at again at each start, to tell whether it is still the same log';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_crc IS 'its checksum (CRC-32C of timestamp, key and value)';

-- The condition spares the workers, which move them all the time and are
-- superusers: role 10 is the first one.
CREATE TRIGGER spine_check_member
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.spine_offsets
	FOR EACH ROW WHEN (NOT pg_catalog.pg_has_role(10::oid, 'USAGE'))
	EXECUTE FUNCTION @extschema@.spine_check_member();
CREATE TRIGGER spine_check_truncate
	BEFORE TRUNCATE ON @extschema@.spine_offsets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_check_member();

-- Moved by hand: the workers look again at once.
CREATE TRIGGER spine_moved_by_hand
	AFTER UPDATE ON @extschema@.spine_offsets
	FOR EACH ROW WHEN (NEW.next_offset IS DISTINCT FROM NEW.worker_next_offset)
	EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_deleted_by_hand
	AFTER DELETE ON @extschema@.spine_offsets
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_truncated_by_hand
	AFTER TRUNCATE ON @extschema@.spine_offsets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();

CREATE FUNCTION @extschema@.spine_topic_offsets(topic text, since timestamptz DEFAULT NULL,
	OUT partition integer, OUT first_offset bigint, OUT end_offset bigint,
	OUT since_offset bigint, OUT cluster_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_topic_offsets'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz) IS
'what the broker has of a topic: per partition the first offset, the end, and the first record not older than `since`';
REVOKE ALL ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz) FROM PUBLIC;

-- To where exactly one of the last three says; what the functions below share.
-- The rows are locked in the order in which the workers do it.
CREATE FUNCTION @extschema@.spine_move_positions(
	of_pipeline name, of_partition integer, to_offset bigint, since timestamptz, place text)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	of_topic	text;
	log			record;
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	SELECT coalesce(p.topic, current_setting('spine.topic'))
	INTO of_topic
	FROM @extschema@.spine_pipelines p
	WHERE p.name = of_pipeline;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'pipeline "%" does not exist', of_pipeline
			USING ERRCODE = 'undefined_object',
				  HINT = 'The table spine_pipelines lists the pipelines.';
	END IF;
	IF num_nonnulls(to_offset, since, place) = 0 THEN
		RAISE EXCEPTION 'the place to go to must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;

	FOR log IN
		SELECT t.partition, t.first_offset, t.end_offset, t.cluster_id,
			   CASE WHEN to_offset IS NOT NULL THEN to_offset
					WHEN since IS NOT NULL THEN t.since_offset
					WHEN place = 'earliest' THEN t.first_offset
					ELSE t.end_offset END AS next_offset
		FROM @extschema@.spine_topic_offsets(of_topic, since) t
		WHERE of_partition IS NULL OR t.partition = of_partition
		ORDER BY 1
	LOOP
		IF log.next_offset NOT BETWEEN log.first_offset AND log.end_offset THEN
			RAISE EXCEPTION 'partition % of topic "%" has no offset %', log.partition, of_topic, log.next_offset
				USING ERRCODE = 'invalid_parameter_value',
					  DETAIL = format('It begins at %s and ends before %s.', log.first_offset, log.end_offset);
		END IF;
		IF of_partition IS NOT NULL AND EXISTS (
			SELECT FROM @extschema@.spine_offsets o
			WHERE o.pipeline = of_pipeline AND o.topic = of_topic AND o.cluster_id <> log.cluster_id) THEN
			RAISE EXCEPTION 'the positions of pipeline "%" belong to another cluster', of_pipeline
				USING ERRCODE = 'object_not_in_prerequisite_state',
					  HINT = 'Move all partitions at once: give NULL as the partition.';
		END IF;

		partition := log.partition;
		new_offset := log.next_offset;
		SELECT o.next_offset
		INTO old_offset
		FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND o.topic = of_topic AND o.partition = log.partition
		FOR UPDATE;
		INSERT INTO @extschema@.spine_offsets AS o (pipeline, topic, partition, next_offset, cluster_id)
		VALUES (of_pipeline, of_topic, log.partition, log.next_offset, log.cluster_id)
		ON CONFLICT (pipeline, topic, partition) DO UPDATE
		SET next_offset = EXCLUDED.next_offset, cluster_id = EXCLUDED.cluster_id, updated_at = now(),
			worker_next_offset = NULL, mark_offset = NULL, mark_crc = NULL;
		RETURN NEXT;
	END LOOP;

	IF log IS NULL THEN
		RAISE EXCEPTION 'topic "%" has no partition %', of_topic, of_partition
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF of_partition IS NULL THEN
		DELETE FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND o.topic = of_topic AND o.partition > log.partition;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_move_positions(name, integer, bigint, timestamptz, text) IS
'part of spine_seek';
REVOKE ALL ON FUNCTION @extschema@.spine_move_positions(name, integer, bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target bigint)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM @extschema@.spine_move_positions(of_pipeline, of_partition, target, NULL::timestamptz, NULL::text)
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, bigint) IS
'let a pipeline go on from an offset of a partition (NULL: of each)';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, bigint) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target timestamptz)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM @extschema@.spine_move_positions(of_pipeline, of_partition, NULL::bigint, target, NULL::text)
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) IS
'let a pipeline go on from the first record of a partition (NULL: of each) that is not older than a time';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) FROM PUBLIC;

-- A time or an offset in quotes, of no type yet, comes here.
CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(
		of_pipeline, of_partition,
		CASE WHEN target ~ '^-?\d+$' THEN target::bigint END,
		CASE WHEN target !~ '^-?\d+$' AND target NOT IN ('earliest', 'latest') THEN target::timestamptz END,
		CASE WHEN target IN ('earliest', 'latest') THEN target END)
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, text) IS
'let a pipeline go on from the start (''earliest'') or the end (''latest'') of a partition (NULL: of each)';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, text) FROM PUBLIC;

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

--
-- 5. What is going on
--

CREATE FUNCTION @extschema@.spine_worker_status(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_worker_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_worker_status() IS 'the workers of this database, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_worker_status() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_partition_status(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_partition_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_partition_status() IS
'the partitions that workers of this database have read since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_partition_status() FROM PUBLIC;

CREATE VIEW @extschema@.spine_status AS
SELECT p.name AS pipeline,
	   t.topic,
	   x.partition,
	   w.pid AS worker_pid,
	   CASE WHEN NOT p.enabled THEN 'paused'
			WHEN w.pid IS NULL AND w.state IS DISTINCT FROM 'failed' THEN 'stopped'
			ELSE w.state END AS state,
	   w.state_since,
	   x.next_offset,
	   x.high_watermark,
	   -- greatest() by itself would take an unknown lag for none
	   CASE WHEN x.high_watermark IS NOT NULL
			THEN greatest(x.high_watermark - x.next_offset, 0) END AS lag,
	   x.last_batch_rows,
	   x.last_batch_ms,
	   x.last_commit_at,
	   coalesce(x.events_total, 0) AS events_total,
	   coalesce(x.dead_letters_total, 0) AS dead_letters_total,
	   w.last_error,
	   w.last_error_at
FROM @extschema@.spine_pipelines p
CROSS JOIN LATERAL (SELECT coalesce(p.topic, current_setting('spine.topic')) AS topic) t
LEFT JOIN (
	SELECT pipeline, topic, partition,
		   coalesce(o.next_offset, s.next_offset) AS next_offset,
		   s.high_watermark, s.last_batch_rows, s.last_batch_ms, s.last_commit_at,
		   s.events_total, s.dead_letters_total
	FROM @extschema@.spine_offsets o
	FULL JOIN @extschema@.spine_partition_status() s USING (pipeline, topic, partition)
) x ON x.pipeline = p.name AND x.topic = t.topic
LEFT JOIN @extschema@.spine_worker_status() w
	ON w.pipeline = p.name AND w.worker = coalesce(x.partition, 0) % w.workers
ORDER BY 1, 3;
COMMENT ON VIEW @extschema@.spine_status IS
'a row per pipeline and partition: its worker, position, lag and last error; totals are since the server started';
GRANT SELECT ON @extschema@.spine_status TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_worker_status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_partition_status() TO pg_monitor;

--
-- 6. What spine-http serves
--

-- The newest orders are found without an index on updated_at, which every event
-- changes: it is the time of the order's newest event, and the key of events has
-- those in order.  The next two functions are made for the third, and run with
-- its settings; they are plpgsql because that keeps their plans.

CREATE TYPE @extschema@.spine_order AS (
	order_id		text,
	tenant			text,
	status			text,
	amount_cents	bigint,
	currency		text,
	updated_at		timestamptz
);
COMMENT ON TYPE @extschema@.spine_order IS
'a row of current_orders as spine_orders shows it, whatever columns are added there';

-- Orders of a tenant, newest first, found by walking back over its newest
-- max_events events that are not older than `since`.
CREATE FUNCTION @extschema@.spine_walk_orders(
	of_tenant text, of_status text, since timestamptz, max_events integer, max_rows integer)
RETURNS SETOF @extschema@.spine_order
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT o.*
		FROM (SELECT order_id, event_time, event_id
			  FROM @extschema@.events
			  WHERE tenant = of_tenant AND event_time >= since
			  ORDER BY event_time DESC, event_id DESC
			  LIMIT max_events) e
		CROSS JOIN LATERAL (
			SELECT c.order_id, c.tenant, c.status, c.amount_cents, c.currency, c.updated_at
			FROM @extschema@.current_orders c
			WHERE c.tenant = of_tenant AND c.order_id = e.order_id
				AND c.updated_at = e.event_time
				AND (of_status IS NULL OR c.status = of_status)
				-- an order may have several events of the same time
				AND NOT EXISTS (
					SELECT FROM @extschema@.events t
					WHERE t.tenant = of_tenant AND t.event_time = e.event_time
						AND t.order_id = e.order_id AND t.event_id > e.event_id)
			LIMIT 1) o
		ORDER BY e.event_time DESC, e.event_id DESC
		LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_walk_orders(text, text, timestamptz, integer, integer) IS
'orders of one tenant, newest first, found by its newest events; part of spine_orders';

-- The newest orders of a tenant that are not older than `since`, newest first.
-- Where walking events is no good (few orders with many events each, a rare
-- status, events that were deleted) its orders are sorted.
CREATE FUNCTION @extschema@.spine_tenant_orders(
	of_tenant text, of_status text, since timestamptz, max_rows integer)
RETURNS SETOF @extschema@.spine_order
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	all_orders		bigint;		-- of the tenant
	matching		bigint;		-- of these, with the status
	newest_of_all	timestamptz;
	max_events		integer := 1000 + 10 * max_rows;
	walked			@extschema@.spine_order[];
BEGIN
	SELECT sum(orders), sum(orders) FILTER (WHERE of_status IS NULL OR status = of_status), max(newest)
	INTO all_orders, matching, newest_of_all
	FROM @extschema@.spine_order_totals
	WHERE tenant = of_tenant;

	IF coalesce(matching, 0) <= 0 THEN
		RETURN;
	END IF;

	IF all_orders > 10 * max_rows THEN
		walked := ARRAY(
			SELECT w
			FROM @extschema@.spine_walk_orders(of_tenant, of_status, since, max_events, max_rows) w);

		-- all there are to find, or all that are new enough; and no newest events
		-- are gone, whose orders would be missing
		IF (cardinality(walked) >= least(max_rows, matching)
			OR since > '-infinity' AND NOT EXISTS (
				SELECT FROM @extschema@.events
				WHERE tenant = of_tenant AND event_time >= since
				OFFSET max_events))
			AND EXISTS (
				SELECT FROM @extschema@.events
				WHERE tenant = of_tenant AND event_time >= newest_of_all) THEN
			RETURN QUERY SELECT * FROM unnest(walked);
			RETURN;
		END IF;
	END IF;

	RETURN QUERY
		SELECT order_id, tenant, status, amount_cents, currency, updated_at
		FROM @extschema@.current_orders
		WHERE tenant = of_tenant AND updated_at >= since
			AND (of_status IS NULL OR status = of_status)
		ORDER BY updated_at DESC, order_id
		LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_tenant_orders(text, text, timestamptz, integer) IS
'the newest orders of one tenant; part of spine_orders';

-- Of all tenants: a few orders of each of those where there is something new
-- tell how old the last row of the result is at most.  With that known, no
-- tenant is walked back further.  The settings keep the planner from sorting all
-- events instead, whatever the statistics say, or do not say yet.
CREATE FUNCTION @extschema@.spine_orders(
	of_tenant text DEFAULT NULL, of_status text DEFAULT NULL, max_rows integer DEFAULT 100)
RETURNS SETOF @extschema@.spine_order
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
	tenants		integer;
	per_tenant	integer;
	oldest		timestamptz := '-infinity';
BEGIN
	IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 1000000 THEN
		RAISE EXCEPTION 'max_rows must be between 1 and 1000000'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	IF of_tenant IS NOT NULL THEN
		RETURN QUERY
			SELECT *
			FROM @extschema@.spine_tenant_orders(of_tenant, of_status, timestamptz '-infinity', max_rows);
		RETURN;
	END IF;

	SELECT count(DISTINCT tenant)
	INTO tenants
	FROM @extschema@.spine_order_totals
	WHERE of_status IS NULL OR status = of_status;

	IF tenants > 1 THEN
		per_tenant := 1 + max_rows / least(tenants, max_rows);
		SELECT min(o.updated_at)
		INTO oldest
		FROM (SELECT w.updated_at
			  FROM (SELECT tenant
					FROM @extschema@.spine_order_totals
					WHERE of_status IS NULL OR status = of_status
					GROUP BY tenant
					ORDER BY max(newest) DESC
					LIMIT max_rows) t
			  CROSS JOIN LATERAL @extschema@.spine_walk_orders(
				  t.tenant, of_status, timestamptz '-infinity', 100 + 10 * per_tenant, per_tenant) w
			  ORDER BY w.updated_at DESC
			  LIMIT max_rows) o
		HAVING count(*) = max_rows;
		oldest := coalesce(oldest, '-infinity');
	END IF;

	RETURN QUERY
		SELECT o.*
		FROM (SELECT tenant
			  FROM @extschema@.spine_order_totals
			  WHERE of_status IS NULL OR status = of_status
			  GROUP BY tenant
			  HAVING max(newest) >= oldest) t
		CROSS JOIN LATERAL @extschema@.spine_tenant_orders(t.tenant, of_status, oldest, max_rows) o
		ORDER BY o.updated_at DESC, o.tenant, o.order_id
		LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_orders(text, text, integer) IS
'the newest orders first, of all tenants or one, in any status or one';

CREATE FUNCTION @extschema@.spine_stats(of_tenant text DEFAULT NULL)
RETURNS TABLE (tenant text, currency text, orders bigint, revenue_cents numeric, by_status jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.tenant, s.currency, sum(s.orders)::bigint,
		   coalesce(sum(s.amount_cents) FILTER (WHERE s.status <> 'order_cancelled'), 0),
		   jsonb_object_agg(s.status, jsonb_build_object('orders', s.orders,
														 'amount_cents', s.amount_cents))
	FROM (SELECT t.tenant, t.currency, t.status,
				 sum(t.orders) AS orders, sum(t.amount_cents) AS amount_cents
		  FROM @extschema@.spine_order_totals t
		  WHERE of_tenant IS NULL OR t.tenant = of_tenant
		  GROUP BY 1, 2, 3
		  HAVING sum(t.orders) <> 0) s
	GROUP BY 1, 2
	ORDER BY 3 DESC, 1, 2
$$;
COMMENT ON FUNCTION @extschema@.spine_stats(text) IS
'orders and revenue per tenant and currency, in all and by status; cancelled orders carry no revenue';

-- As the extension's owner, for the next three: they say how spine is, and
-- nothing of what is in the records.
CREATE FUNCTION @extschema@.spine_readiness(OUT ready boolean, OUT report jsonb)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(bool_and(p.state <> 'failed'), true),
		   jsonb_build_object(
			   'status', CASE WHEN bool_or(p.state = 'failed') THEN 'not ready' ELSE 'ready' END,
			   'pipelines', coalesce(jsonb_agg(p ORDER BY p.pipeline), '[]'))
	FROM (
		SELECT s.pipeline,
			   -- the worst that a worker of it is in
			   (array_agg(s.state ORDER BY array_position(
				   ARRAY['failed', 'waiting', 'stopped', 'starting', 'paused', 'running'], s.state)))[1] AS state,
			   CASE WHEN count(*) = count(s.lag) THEN sum(s.lag) END AS lag,
			   sum(s.events_total) AS events_total,
			   sum(s.dead_letters_total) AS dead_letters_total
		FROM @extschema@.spine_status s
		GROUP BY 1
	) p
$$;
COMMENT ON FUNCTION @extschema@.spine_readiness() IS
'false when a pipeline has failed; and how each of them is';
REVOKE ALL ON FUNCTION @extschema@.spine_readiness() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_pipeline_counters(
	OUT pipeline name, OUT records_consumed bigint, OUT upserts bigint,
	OUT batches bigint, OUT batch_seconds double precision,
	OUT bucket_bounds double precision[], OUT bucket_counts bigint[])
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_pipeline_counters'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_counters() IS
'what the workers of this database''s pipelines have done since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_pipeline_counters() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_produced(OUT tenant text, OUT events bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_produced'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_produced() IS
'synthetic events sent since the server started, by tenant; NULL: all tenants beyond the first 64';
REVOKE ALL ON FUNCTION @extschema@.spine_produced() FROM PUBLIC;

-- Names and units as Prometheus has them: https://prometheus.io/docs/practices/naming/
CREATE VIEW @extschema@.spine_metrics AS
WITH partitions AS (
	SELECT s.*, jsonb_build_object('pipeline', s.pipeline, 'topic', s.topic,
								   'partition', s.partition::text) AS labels
	FROM @extschema@.spine_status s
	WHERE s.partition IS NOT NULL
), pipelines AS (
	SELECT c.*, jsonb_build_object('pipeline', c.pipeline) AS labels
	FROM @extschema@.spine_pipeline_counters() c
), workers AS (
	SELECT w.*, jsonb_build_object('pipeline', w.pipeline, 'worker', w.worker::text) AS labels
	FROM @extschema@.spine_worker_status() w
)
SELECT m.metric, m.type, m.help, m.metric || m.suffix AS sample, m.labels, m.value
FROM (
	SELECT 'spine_events_produced_total' AS metric, 'counter' AS type,
		   'Synthetic events that the broker acknowledged; without a tenant: all beyond the first 64.' AS help,
		   '' AS suffix,
		   CASE WHEN p.tenant IS NULL THEN '{}' ELSE jsonb_build_object('tenant', p.tenant) END AS labels,
		   sum(p.events) AS value
	FROM @extschema@.spine_produced() p
	GROUP BY p.tenant
	UNION ALL
	SELECT 'spine_records_consumed_total', 'counter',
		   'Records read from the broker, those read again included.', '', labels, records_consumed
	FROM pipelines
	UNION ALL
	SELECT 'spine_upserts_total', 'counter',
		   'Rows inserted or updated by sinks in mode upsert.', '', labels, upserts
	FROM pipelines
	UNION ALL
	SELECT 'spine_batches_total', 'counter', 'Batches committed.', '', labels, batches
	FROM pipelines
	UNION ALL
	SELECT 'spine_batch_duration_seconds', 'histogram', 'Time from the start of a batch to its commit.',
		   '_bucket', labels || jsonb_build_object('le', CASE WHEN b.bound = 'infinity' THEN '+Inf' ELSE b.bound::text END),
		   b.count
	FROM pipelines, unnest(bucket_bounds, bucket_counts) b (bound, count)
	UNION ALL
	SELECT 'spine_batch_duration_seconds', 'histogram', 'Time from the start of a batch to its commit.',
		   s.suffix, labels, s.value
	FROM pipelines, LATERAL (VALUES ('_sum', batch_seconds::numeric), ('_count', batches)) s (suffix, value)
	UNION ALL
	SELECT 'spine_events_applied_total', 'counter', 'Records applied to the tables.', '', labels, events_total
	FROM partitions
	UNION ALL
	SELECT 'spine_dead_letters_total', 'counter', 'Records kept as dead letters.', '', labels, dead_letters_total
	FROM partitions
	UNION ALL
	SELECT 'spine_next_offset', 'gauge', 'First offset that is not applied yet.', '', labels, next_offset
	FROM partitions
	UNION ALL
	SELECT 'spine_high_watermark_offset', 'gauge', 'End of the partition, as last heard from the broker.',
		   '', labels, high_watermark
	FROM partitions
	UNION ALL
	SELECT 'spine_lag_records', 'gauge', 'Records of the partition that are not applied yet.', '', labels, lag
	FROM partitions
	UNION ALL
	SELECT 'spine_last_commit_timestamp_seconds', 'gauge', 'When a batch of the partition was last committed.',
		   '', labels, round(extract(epoch FROM last_commit_at), 3)
	FROM partitions
	UNION ALL
	SELECT 'spine_worker_up', 'gauge', 'Whether the worker is running.', '', labels, (pid IS NOT NULL)::integer
	FROM workers
	UNION ALL
	SELECT 'spine_worker_failed', 'gauge', 'Whether the worker waits for a person: see spine_status.',
		   '', labels, (state = 'failed')::integer
	FROM workers
	UNION ALL
	SELECT 'spine_pipeline_enabled', 'gauge', 'Whether the pipeline is not paused.', '',
		   jsonb_build_object('pipeline', p.name), p.enabled::integer
	FROM @extschema@.spine_pipelines p
) m
WHERE m.value IS NOT NULL;
COMMENT ON VIEW @extschema@.spine_metrics IS
'counters since the server started, and gauges; what /metrics of spine-http shows';
GRANT SELECT ON @extschema@.spine_metrics TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_pipeline_counters() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_produced() TO pg_monitor;

-- https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
CREATE FUNCTION @extschema@.spine_metrics_text()
RETURNS text
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET jit = off	-- which would take longer than the query
AS $$
	SELECT string_agg(f.lines, '' ORDER BY f.metric)
	FROM (
		SELECT m.metric,
			   '# HELP ' || m.metric || ' ' || m.help || E'\n' ||
			   '# TYPE ' || m.metric || ' ' || m.type || E'\n' ||
			   string_agg(m.sample || coalesce('{' || l.text || '}', '') || ' ' || m.value || E'\n', ''
						  ORDER BY l.series, m.sample COLLATE "C", (m.labels ->> 'le')::float8) AS lines
		FROM @extschema@.spine_metrics m
		CROSS JOIN LATERAL (
			SELECT string_agg(pair, ',' ORDER BY key = 'le', key) AS text,
				   string_agg(pair, ',' ORDER BY key) FILTER (WHERE key <> 'le') AS series
			FROM (SELECT key, key || '="' || replace(replace(replace(value,
							'\', '\\'), '"', '\"'), E'\n', '\n') || '"' AS pair
				  FROM jsonb_each_text(m.labels)) p
		) l
		GROUP BY m.metric, m.type, m.help
	) f
$$;
COMMENT ON FUNCTION @extschema@.spine_metrics_text() IS 'spine_metrics in the text format of Prometheus';
REVOKE ALL ON FUNCTION @extschema@.spine_metrics_text() FROM PUBLIC;

--
-- 7. The default pipeline: order events
--

INSERT INTO @extschema@.spine_pipelines (name, is_default) VALUES ('orders', true);

INSERT INTO @extschema@.spine_sinks (pipeline, target, mode, key, version, columns) VALUES
	('orders', '@extschema@.events', 'append', '{tenant,event_time,event_id}', NULL,
	 '{"tenant": "tenant", "event_id": "event_id", "event_type": "event_type",
	   "order_id": "order_id", "amount_cents": "amount_cents", "event_time": "event_time",
	   "kafka_partition": "$partition", "kafka_offset": "$offset"}'),
	('orders', '@extschema@.current_orders', 'upsert', '{tenant,order_id}', 'updated_at',
	 '{"tenant": "tenant", "order_id": "order_id", "status": "event_type",
	   "amount_cents": "amount_cents", "currency": "currency", "updated_at": "event_time"}');

--
-- 8. pg_dump keeps the data of all of them, but for the totals: the triggers
-- count them again as current_orders is restored
--

SELECT pg_catalog.pg_extension_config_dump('@extschema@.events', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.current_orders', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_sinks', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_offsets', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_dead_letters_id_seq', '');
