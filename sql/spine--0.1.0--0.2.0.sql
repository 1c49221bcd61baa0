/*
 * spine 0.1.0 to 0.2.0: what ALTER EXTENSION UPDATE changes.
 *
 * An updated database has the same objects as CREATE EXTENSION makes;
 * test/t/025_upgrade.pl compares the two.
 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION spine UPDATE" to load this file. \quit

-- Other roles may create objects in the schema: none of their operators and functions
-- must be taken for one of PostgreSQL's.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- No negative positions: the Kafka library would take them for something else
--

DO $$
BEGIN
	IF EXISTS (SELECT FROM @extschema@.spine_offsets WHERE partition < 0 OR next_offset < 0) THEN
		RAISE EXCEPTION 'spine_offsets has a row whose partition or next_offset is negative'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  HINT = 'Set the position with spine_seek or delete the row, then update the extension.';
	END IF;
END
$$;
UPDATE @extschema@.spine_offsets SET mark_offset = NULL WHERE mark_offset < 0;
ALTER TABLE @extschema@.spine_offsets
	ADD CHECK (partition >= 0), ADD CHECK (next_offset >= 0), ADD CHECK (mark_offset >= 0);

--
-- spine_wait reads spine_offsets
--

ALTER FUNCTION @extschema@.spine_wait(interval) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

--
-- The default of a pipeline's topic, in one place
--

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

--
-- Rights: spine's own tables have only spine's own triggers, and only members of a
-- pipeline's owner change the pipeline, its sinks and its positions
--

-- Some of the functions below change spine's own tables with the rights of the
-- functions' owner.  A trigger that another role has made on such a table would run with
-- these rights too, so the functions look for one first.
CREATE FUNCTION @extschema@.spine_check_triggers(of_table regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'spine_check_triggers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_check_triggers(regclass) IS
'raises an error when one of spine''s own tables has a trigger that is not spine''s';

CREATE OR REPLACE FUNCTION @extschema@.spine_recount_orders()
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- see spine_count_orders
	IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION 'cannot recount orders in a transaction with isolation level %',
				current_setting('transaction_isolation')
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'Use a transaction with isolation level READ COMMITTED.';
	END IF;
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_totals'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_sums'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_counts'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_changes'::regclass);
	LOCK TABLE @extschema@.current_orders IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM @extschema@.spine_order_totals;
	DELETE FROM @extschema@.spine_order_sums;
	DELETE FROM @extschema@.spine_order_counts;
	DELETE FROM @extschema@.spine_order_changes;
	INSERT INTO @extschema@.spine_order_totals
	SELECT tenant, currency, status, 0, count(*), sum(amount_cents), max(updated_at)
	FROM @extschema@.current_orders
	GROUP BY 1, 2, 3;
	INSERT INTO @extschema@.spine_order_sums
	SELECT currency, status, 0, sum(orders), sum(amount_cents)
	FROM @extschema@.spine_order_totals
	GROUP BY 1, 2;
	INSERT INTO @extschema@.spine_order_counts
	SELECT tenant, 0, sum(orders)
	FROM @extschema@.spine_order_totals
	GROUP BY 1;
	INSERT INTO @extschema@.spine_order_changes (newest, tenants, order_ids, updated_at, since)
	SELECT max(n.updated_at), array_agg(n.tenant), array_agg(n.order_id), array_agg(n.updated_at),
		   CASE WHEN count(*) = 1000 THEN min(n.updated_at) END
	FROM (SELECT tenant, order_id, updated_at
		  FROM @extschema@.current_orders
		  ORDER BY updated_at DESC
		  LIMIT 1000) n
	HAVING count(*) > 0;
END
$$;

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

CREATE OR REPLACE FUNCTION @extschema@.spine_check_pipeline()
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

DROP TRIGGER spine_check_pipeline ON @extschema@.spine_pipelines;
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
CREATE TRIGGER spine_check_member
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.spine_offsets
	FOR EACH ROW WHEN (NOT pg_catalog.pg_has_role(10::oid, 'USAGE'))
	EXECUTE FUNCTION @extschema@.spine_check_member();
CREATE TRIGGER spine_check_truncate
	BEFORE TRUNCATE ON @extschema@.spine_offsets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_check_member();

-- A crash empties an unlogged table, and the position would still say that its rows
-- are applied.  A temporary table is gone with its session.
CREATE OR REPLACE FUNCTION @extschema@.spine_check_sink()
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

DROP TRIGGER spine_check_sink ON @extschema@.spine_sinks;
CREATE TRIGGER spine_check_sink
	BEFORE INSERT OR UPDATE OF target, columns ON @extschema@.spine_sinks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_check_sink();

-- with a search_path
CREATE OR REPLACE FUNCTION @extschema@.spine_walk_orders(
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
				-- an order may have several events with the same time
				AND NOT EXISTS (
					SELECT FROM @extschema@.events t
					WHERE t.tenant = of_tenant AND t.event_time = e.event_time
						AND t.order_id = e.order_id AND t.event_id > e.event_id)
			LIMIT 1) o
		ORDER BY e.event_time DESC, e.event_id DESC
		LIMIT max_rows;
END
$$;

CREATE OR REPLACE FUNCTION @extschema@.spine_tenant_orders(
	of_tenant text, of_status text, since timestamptz, max_rows integer)
RETURNS SETOF @extschema@.spine_order
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	all_orders		bigint;		-- of the tenant
	matching		bigint;		-- those with the status
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

		-- The walk has found all orders, or seen all events that are new enough; and
		-- the newest events are still there: without them it would miss their orders.
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

--
-- Totals: a session begins new rows while other sessions hold old snapshots
--

COMMENT ON FUNCTION @extschema@.spine_session_number() IS
'a number that no other session has at this time; a session has several in turn, all equal modulo 262144';
COMMENT ON COLUMN @extschema@.spine_order_totals.session IS 'number of the session that counts in this row, see spine_session_number(); numbers are used again';

CREATE OR REPLACE FUNCTION @extschema@.spine_count_orders()
RETURNS trigger
AS 'MODULE_PATHNAME', 'spine_count_orders'
LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

--
-- Sums, the largest tenants and the newest changes: no answer reads the totals of every tenant
--

-- The same added up over the tenants, so that nobody has to read the totals of all tenants
-- for a sum.
CREATE TABLE @extschema@.spine_order_sums (
	currency		text COLLATE "C" NOT NULL,
	status			text COLLATE "C" NOT NULL,
	session			integer NOT NULL,
	orders			bigint NOT NULL,
	amount_cents	numeric NOT NULL,
	PRIMARY KEY (currency, status, session)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.spine_order_sums IS
'spine_order_totals, added up over the tenants';

-- The number of orders of each tenant, with an index that has the largest first.  A row
-- changes when a tenant gets or loses an order, not when an order changes.
CREATE TABLE @extschema@.spine_order_counts (
	tenant			text COLLATE "C" NOT NULL,
	session			integer NOT NULL,
	orders			bigint NOT NULL,
	PRIMARY KEY (tenant, session)
);
CREATE INDEX spine_order_counts_largest ON @extschema@.spine_order_counts (session, orders DESC, tenant);
COMMENT ON TABLE @extschema@.spine_order_counts IS
'spine_order_totals, added up over currencies and statuses';

-- The newest orders that each statement has written.  Rows are only added, and removed
-- when the rows that have a later `newest` list 10000 orders.  So the orders are complete
-- down to the last of the first rows that list 10000, or to the end.
CREATE TABLE @extschema@.spine_order_changes (
	newest			timestamptz NOT NULL,
	id				bigint GENERATED ALWAYS AS IDENTITY,
	tenants			text[] NOT NULL,
	order_ids		text[] NOT NULL,
	updated_at		timestamptz[] NOT NULL,
	since			timestamptz,
	PRIMARY KEY (newest, id)
);
COMMENT ON TABLE @extschema@.spine_order_changes IS
'the newest orders that each statement has written to current_orders, where spine_orders looks first';
COMMENT ON COLUMN @extschema@.spine_order_changes.newest IS 'time of the newest of these orders';
COMMENT ON COLUMN @extschema@.spine_order_changes.since IS
'the statement has written more orders, and none of them is newer than this; NULL: all are listed';

-- The newest max_orders orders that the changes list.  Every order that is newer than
-- `since` is among them, and if `since` is null, every order is.
CREATE FUNCTION @extschema@.spine_changed_orders(
	max_orders integer, OUT tenants text[], OUT order_ids text[], OUT since timestamptz)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	change	record;
	times	timestamptz[] := '{}';
BEGIN
	tenants := '{}';
	order_ids := '{}';
	FOR change IN
		SELECT c.* FROM @extschema@.spine_order_changes c ORDER BY c.newest DESC, c.id DESC
	LOOP
		tenants := tenants || change.tenants;
		order_ids := order_ids || change.order_ids;
		times := times || change.updated_at;
		since := greatest(since, change.since);
		IF cardinality(times) >= max_orders THEN
			since := greatest(since, change.newest);
			EXIT;
		END IF;
	END LOOP;

	IF cardinality(times) > max_orders THEN
		SELECT array_agg(l.tenant), array_agg(l.order_id), greatest(since, min(l.updated_at))
		INTO tenants, order_ids, since
		FROM (SELECT u.*
			  FROM unnest(tenants, order_ids, times) AS u (tenant, order_id, updated_at)
			  ORDER BY u.updated_at DESC
			  LIMIT max_orders) l;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_changed_orders(integer) IS
'the orders that the newest changes have written; part of spine_orders';

-- The n tenants with the most orders, or fewer if there are fewer.  A tenant's orders are
-- counted by several sessions, and each session's largest tenants are found through an
-- index.  A tenant that is not among the first of any session has no more orders than
-- the last ones of all sessions together.
CREATE FUNCTION @extschema@.spine_largest_tenants(n integer)
RETURNS TABLE (tenant text, orders bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	depth		bigint := n;
	candidates	text[];
	at_most		numeric;	-- what a tenant that is not a candidate can have
	largest		text[];
	counts		bigint[];
BEGIN
	LOOP
		SELECT array_agg(DISTINCT f.tenant), sum(f.orders) FILTER (WHERE f.place = depth)
		INTO candidates, at_most
		FROM (SELECT DISTINCT session FROM @extschema@.spine_order_sums) s
		CROSS JOIN LATERAL (
			SELECT c.tenant, c.orders, row_number() OVER (ORDER BY c.orders DESC, c.tenant) AS place
			FROM @extschema@.spine_order_counts c
			WHERE c.session = s.session AND c.orders > 0
			ORDER BY c.orders DESC, c.tenant
			LIMIT depth) f;

		SELECT array_agg(l.tenant), array_agg(l.orders)
		INTO largest, counts
		FROM (SELECT u.tenant, o.orders
			  FROM unnest(candidates) AS u (tenant)
			  CROSS JOIN LATERAL (
				  SELECT sum(c.orders)::bigint AS orders
				  FROM @extschema@.spine_order_counts c
				  WHERE c.tenant = u.tenant) o
			  WHERE o.orders > 0
			  ORDER BY o.orders DESC, u.tenant
			  LIMIT n) l;

		EXIT WHEN at_most IS NULL OR counts[n] >= at_most;
		depth := 4 * depth;
	END LOOP;
	RETURN QUERY SELECT * FROM unnest(largest, counts);
END
$$;
COMMENT ON FUNCTION @extschema@.spine_largest_tenants(integer) IS
'the n tenants with the most orders; of tenants with equally many, any may be left out';

-- The first n tenants, in the order of bytes, whose names begin with a text.
CREATE FUNCTION @extschema@.spine_tenants_named(name_prefix text, n integer)
RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	found_name	text;
	found_names	integer := 0;
BEGIN
	FOR found_name IN
		SELECT c.tenant
		FROM @extschema@.spine_order_counts c
		WHERE c.tenant >= name_prefix
		GROUP BY c.tenant
		HAVING sum(c.orders) > 0
		ORDER BY c.tenant
	LOOP
		EXIT WHEN found_names = n OR NOT starts_with(found_name, name_prefix);
		RETURN NEXT found_name;
		found_names := found_names + 1;
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_tenants_named(text, integer) IS
'the first n tenants with orders whose names begin with a text';

-- spine_stats for a bounded number of tenants, and for all others in one.  The settings
-- keep the planner from reading all rows of a table, whatever the statistics say.
CREATE FUNCTION @extschema@.spine_stats_summary(
	of_tenant text DEFAULT NULL, name_prefix text DEFAULT NULL, max_tenants integer DEFAULT 100)
RETURNS TABLE (tenant text, currency text, orders bigint, revenue_cents numeric, by_status jsonb, tenants bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_sort = off SET enable_hashagg = off SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
	shown		text[];
	has_others	boolean;
	others		bigint;		-- how many; null: more than 1000
BEGIN
	IF max_tenants IS NULL OR max_tenants NOT BETWEEN 1 AND 100000 THEN
		RAISE EXCEPTION 'max_tenants must be between 1 and 100000'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	IF of_tenant IS NOT NULL THEN
		shown := ARRAY[of_tenant];
	ELSIF name_prefix IS NOT NULL THEN
		shown := ARRAY(SELECT t FROM @extschema@.spine_tenants_named(name_prefix, max_tenants) t);
	ELSE
		shown := ARRAY(SELECT t.tenant FROM @extschema@.spine_largest_tenants(max_tenants) t);
	END IF;

	has_others := of_tenant IS NULL AND name_prefix IS NULL AND cardinality(shown) = max_tenants;
	IF has_others THEN
		SELECT CASE WHEN count(*) <= max_tenants + 1000 THEN count(*) - max_tenants END
		INTO others
		FROM (SELECT c.tenant
			  FROM @extschema@.spine_order_counts c
			  GROUP BY c.tenant
			  HAVING sum(c.orders) > 0
			  ORDER BY c.tenant
			  LIMIT max_tenants + 1001) t;
	END IF;

	RETURN QUERY
		WITH of_shown AS MATERIALIZED (
			SELECT o.*
			FROM unnest(shown) AS u (tenant)
			CROSS JOIN LATERAL (
				SELECT t.tenant, t.currency, t.status, t.orders, t.amount_cents
				FROM @extschema@.spine_order_totals t
				WHERE t.tenant = u.tenant) o
		)
		SELECT s.tenant, s.currency, sum(s.orders)::bigint,
			   coalesce(sum(s.amount_cents) FILTER (WHERE s.status <> 'order_cancelled'), 0),
			   jsonb_object_agg(s.status, jsonb_build_object('orders', s.orders,
															 'amount_cents', s.amount_cents)),
			   CASE WHEN s.tenant IS NULL THEN others ELSE 1 END
		FROM (SELECT p.tenant, p.currency, p.status,
					 sum(p.orders) AS orders, sum(p.amount_cents) AS amount_cents
			  FROM (SELECT * FROM of_shown
					UNION ALL
					SELECT NULL, currency, status, orders, amount_cents
					FROM @extschema@.spine_order_sums
					WHERE has_others
					UNION ALL
					SELECT NULL, currency, status, -orders, -amount_cents
					FROM of_shown
					WHERE has_others) p
			  GROUP BY 1, 2, 3
			  HAVING sum(p.orders) <> 0) s
		GROUP BY 1, 2
		ORDER BY s.tenant IS NULL, 3 DESC, 1, 2;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_stats_summary(text, text, integer) IS
'spine_stats of the tenants with the most orders, or whose names begin with a text; a row without a tenant adds up the others';

CREATE OR REPLACE FUNCTION @extschema@.spine_stats(of_tenant text DEFAULT NULL)
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
		  FROM (SELECT * FROM @extschema@.spine_order_totals WHERE of_tenant IS NULL
				UNION ALL
				SELECT * FROM @extschema@.spine_order_totals WHERE tenant = of_tenant) t
		  GROUP BY 1, 2, 3
		  HAVING sum(t.orders) <> 0) s
	GROUP BY 1, 2
	ORDER BY 3 DESC, 1, 2
$$;

-- fills the new tables; locks current_orders
SELECT @extschema@.spine_recount_orders();

--
-- Literals have a type.  Without one, a function of the same name that takes text would be
-- called, which another role can make in the schema
--

CREATE OR REPLACE FUNCTION @extschema@.spine_orders(
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
	max_listed	integer;
	changed		record;
	listed		@extschema@.spine_order[];
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

	-- no row is removed from the changes that the last number would need
	FOREACH max_listed IN ARRAY ARRAY[least(2 * max_rows, 10000), 10000] LOOP
		changed := @extschema@.spine_changed_orders(max_listed);
		listed := ARRAY(
			SELECT ROW(o.order_id, o.tenant, o.status, o.amount_cents, o.currency, o.updated_at)::@extschema@.spine_order
			FROM (SELECT DISTINCT * FROM unnest(changed.tenants, changed.order_ids)) AS u (tenant, order_id)
			CROSS JOIN LATERAL (
				SELECT c.order_id, c.tenant, c.status, c.amount_cents, c.currency, c.updated_at
				FROM @extschema@.current_orders c
				WHERE c.tenant = u.tenant AND c.order_id = u.order_id
				LIMIT 1) o
			WHERE (changed.since IS NULL OR o.updated_at >= changed.since)
				AND (of_status IS NULL OR o.status = of_status)
			ORDER BY o.updated_at DESC, o.tenant, o.order_id
			LIMIT max_rows);
		IF changed.since IS NULL OR cardinality(listed) = max_rows THEN
			RETURN QUERY SELECT * FROM unnest(listed);
			RETURN;
		END IF;
	END LOOP;

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

--
-- The hint of an error has a column of its own, and everybody sees the status of pipelines
-- whose owner they may act as.  Two views depend on the function whose columns change, so
-- it is dropped when both are replaced.
--

ALTER FUNCTION @extschema@.spine_worker_status() RENAME TO spine_worker_status_of_0_1;

-- What a worker says may quote values of records, so it is for those who may act as the
-- pipeline's owner, and for monitoring.
CREATE FUNCTION @extschema@.spine_all_workers(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_worker_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_all_workers() IS
'the workers of this database, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_all_workers() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_worker_status_as(caller oid,
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT w.*
		FROM @extschema@.spine_all_workers() w
		WHERE pg_has_role(caller, 'pg_monitor', 'USAGE')
			OR w.pipeline IN (SELECT p.name
							   FROM @extschema@.spine_pipelines p
							   WHERE pg_has_role(caller, p.owner::oid, 'USAGE'));
END
$$;
COMMENT ON FUNCTION @extschema@.spine_worker_status_as(oid) IS 'part of spine_worker_status';
REVOKE ALL ON FUNCTION @extschema@.spine_worker_status_as(oid) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_worker_status(
	OUT pipeline name, OUT worker integer, OUT workers integer, OUT pid integer,
	OUT state text, OUT state_since timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_worker_status() IS
'the workers of this database: those of pipelines that the caller may watch';
GRANT EXECUTE ON FUNCTION @extschema@.spine_worker_status() TO PUBLIC;

CREATE FUNCTION @extschema@.spine_all_partitions(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_partition_status'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_all_partitions() IS
'the partitions that workers of this database have read since the server started, from shared memory';
REVOKE ALL ON FUNCTION @extschema@.spine_all_partitions() FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_partition_status_as(caller oid,
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT s.*
		FROM @extschema@.spine_all_partitions() s
		WHERE pg_has_role(caller, 'pg_monitor', 'USAGE')
			OR s.pipeline IN (SELECT p.name
							   FROM @extschema@.spine_pipelines p
							   WHERE pg_has_role(caller, p.owner::oid, 'USAGE'));
END
$$;
COMMENT ON FUNCTION @extschema@.spine_partition_status_as(oid) IS 'part of spine_partition_status';
REVOKE ALL ON FUNCTION @extschema@.spine_partition_status_as(oid) FROM PUBLIC;

CREATE OR REPLACE FUNCTION @extschema@.spine_partition_status(
	OUT pipeline name, OUT topic text, OUT partition integer,
	OUT next_offset bigint, OUT high_watermark bigint,
	OUT last_batch_rows bigint, OUT last_batch_ms double precision,
	OUT last_commit_at timestamptz,
	OUT events_total bigint, OUT dead_letters_total bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_partition_status() IS
'the partitions that workers of this database have read since the server started: those of pipelines that the caller may watch';
REVOKE ALL ON FUNCTION @extschema@.spine_partition_status() FROM CURRENT_USER, pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.spine_partition_status() TO PUBLIC, CURRENT_USER;

CREATE FUNCTION @extschema@.spine_missing_topics(OUT pipeline name, OUT topic text, OUT since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_missing_topics'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_missing_topics() IS
'the topics that pipelines of this database list and that do not exist, from shared memory';
GRANT EXECUTE ON FUNCTION @extschema@.spine_missing_topics() TO PUBLIC;

CREATE OR REPLACE VIEW @extschema@.spine_status WITH (security_barrier) AS
SELECT p.name AS pipeline,
	   coalesce(x.topic, t.topics) AS topic,
	   x.partition,
	   w.pid AS worker_pid,
	   CASE WHEN NOT p.enabled THEN 'paused'
			WHEN w.pid IS NULL AND w.state IS DISTINCT FROM 'failed' THEN 'stopped'
			WHEN m.is_missing THEN 'waiting'
			ELSE w.state END AS state,
	   CASE WHEN m.is_missing THEN x.missing_since ELSE w.state_since END AS state_since,
	   x.next_offset,
	   x.high_watermark,
	   -- greatest() ignores NULL: an unknown lag would become 0
	   CASE WHEN x.high_watermark IS NOT NULL
			THEN greatest(x.high_watermark - x.next_offset, 0) END AS lag,
	   x.last_batch_rows,
	   x.last_batch_ms,
	   x.last_commit_at,
	   coalesce(x.events_total, 0) AS events_total,
	   coalesce(x.dead_letters_total, 0) AS dead_letters_total,
	   CASE WHEN m.is_missing THEN format('topic "%s" does not exist', x.topic)
			ELSE w.last_error END AS last_error,
	   CASE WHEN m.is_missing THEN x.missing_since ELSE w.last_error_at END AS last_error_at,
	   CASE WHEN m.is_missing THEN 'Create it, or change "topic" in spine_pipelines. The other topics are read.'
			ELSE w.hint END AS hint
FROM @extschema@.spine_pipelines p
CROSS JOIN LATERAL (SELECT @extschema@.spine_pipeline_topic(p.topic) AS topics) t
LEFT JOIN (
	SELECT pipeline, topic, partition,
		   coalesce(o.next_offset, s.next_offset) AS next_offset,
		   s.high_watermark, s.last_batch_rows, s.last_batch_ms, s.last_commit_at,
		   s.events_total, s.dead_letters_total, NULL::timestamptz AS missing_since
	FROM @extschema@.spine_offsets o
	FULL JOIN @extschema@.spine_partition_status() s USING (pipeline, topic, partition)
	UNION ALL
	SELECT pipeline, topic, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, since
	FROM @extschema@.spine_missing_topics()
) x ON x.pipeline = p.name AND @extschema@.spine_topic_matches(x.topic, t.topics)
LEFT JOIN @extschema@.spine_worker_status() w
	ON w.pipeline = p.name
	AND w.worker = @extschema@.spine_partition_worker(p.name, t.topics, coalesce(x.topic, ''), coalesce(x.partition, 0), w.workers)
CROSS JOIN LATERAL (SELECT x.missing_since IS NOT NULL AND w.state = 'running' AS is_missing) m
WHERE pg_has_role('pg_monitor', 'USAGE') OR pg_has_role(p.owner::oid, 'USAGE')
ORDER BY 1, 2, 3;
COMMENT ON VIEW @extschema@.spine_status IS
'a row per pipeline, topic and partition: its worker, position, lag and last error; totals are since the server started';
COMMENT ON COLUMN @extschema@.spine_status.last_error IS
'the message and detail of the last error; kept after recovery';
COMMENT ON COLUMN @extschema@.spine_status.hint IS 'the hint of the last error, or NULL';
REVOKE ALL ON @extschema@.spine_status FROM pg_monitor;
GRANT SELECT ON @extschema@.spine_status TO PUBLIC;

--
-- The metrics of the producer have a view of their own
--

CREATE VIEW @extschema@.spine_produced_metrics AS
SELECT 'spine_events_produced_total' AS metric, 'counter' AS type,
	   'Synthetic events that the broker acknowledged; without a tenant: all beyond the first 64.' AS help,
	   '' AS suffix,
	   CASE WHEN p.tenant IS NULL THEN '{}' ELSE jsonb_build_object('tenant', p.tenant) END AS labels,
	   sum(p.events) AS value
FROM @extschema@.spine_produced() p
GROUP BY p.tenant;
COMMENT ON VIEW @extschema@.spine_produced_metrics IS 'spine_produced as metrics; part of spine_metrics';

CREATE FUNCTION @extschema@.spine_pipeline_skipped(
	OUT pipeline name, OUT filtered bigint, OUT unchanged bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_pipeline_skipped'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.spine_pipeline_skipped() IS
'what each pipeline has not written since the server started, from shared memory: events that a filter left out, and rows that would not have changed';
REVOKE ALL ON FUNCTION @extschema@.spine_pipeline_skipped() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.spine_pipeline_skipped() TO pg_monitor;

CREATE OR REPLACE VIEW @extschema@.spine_metrics AS
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
	SELECT metric, type, help, suffix, labels, value
	FROM @extschema@.spine_produced_metrics
	UNION ALL
	SELECT 'spine_records_consumed_total', 'counter',
		   'Records read from the broker, including those read again.', '', labels, records_consumed
	FROM pipelines
	UNION ALL
	SELECT 'spine_upserts_total', 'counter',
		   'Rows inserted or updated by sinks in mode upsert.', '', labels, upserts
	FROM pipelines
	UNION ALL
	SELECT 'spine_filtered_total', 'counter', 'Events that a sink''s filter has left out, over all sinks.', '',
		   jsonb_build_object('pipeline', s.pipeline), s.filtered
	FROM @extschema@.spine_pipeline_skipped() s
	UNION ALL
	SELECT 'spine_unchanged_total', 'counter',
		   'Rows that sinks in mode upsert did not write, because the row in the table is the same or newer.', '',
		   jsonb_build_object('pipeline', s.pipeline), s.unchanged
	FROM @extschema@.spine_pipeline_skipped() s
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

DROP FUNCTION @extschema@.spine_worker_status_of_0_1();

--
-- Any topic to any table
--

ALTER TABLE @extschema@.spine_pipelines
	ADD COLUMN server name,
	DROP CONSTRAINT spine_pipelines_topic_check,
	ADD CONSTRAINT spine_pipelines_topic_check CHECK (topic ~ '^\^.' AND '' ~ topic IS NOT NULL OR topic ~ '^[A-Za-z0-9._-]{1,249}( *, *[A-Za-z0-9._-]{1,249})*$' AND NOT regexp_split_to_array(topic, ' *, *') && '{.,..}');
COMMENT ON COLUMN @extschema@.spine_pipelines.topic IS
'a topic, several with commas between them, or a regular expression that begins with ^; NULL: the setting spine.topic';
COMMENT ON COLUMN @extschema@.spine_pipelines.server IS
'the Kafka cluster, as CREATE SERVER has declared it; NULL: spine.brokers, or the embedded broker';

ALTER TABLE @extschema@.spine_sinks
	ADD COLUMN ordinal integer,
	ADD COLUMN filter text,
	DROP CONSTRAINT spine_sinks_check,
	ADD CONSTRAINT spine_sinks_check CHECK (mode = 'upsert' OR version IS NULL);
UPDATE @extschema@.spine_sinks s
SET ordinal = r.ordinal
FROM (SELECT pipeline, target, row_number() OVER (PARTITION BY pipeline ORDER BY mode, target) AS ordinal
	  FROM @extschema@.spine_sinks) r
WHERE s.pipeline = r.pipeline AND s.target = r.target;
ALTER TABLE @extschema@.spine_sinks ALTER COLUMN ordinal SET NOT NULL;
COMMENT ON COLUMN @extschema@.spine_sinks.key IS
'columns of a unique index; append: a row that is there already is left alone; upsert: NULL means the primary key';
COMMENT ON COLUMN @extschema@.spine_sinks.version IS
'upsert: the column that decides which of two events for a key is newer; NULL: the later one in the log';
COMMENT ON COLUMN @extschema@.spine_sinks.ordinal IS
'the sinks of a pipeline are applied in this order; when it is not given: after those that are there';
COMMENT ON COLUMN @extschema@.spine_sinks.filter IS
'an SQL condition on the record; a record for which it is not true is left out; NULL: none';

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

CREATE FUNCTION @extschema@.spine_explain(pipeline name)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'spine_explain'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_explain(name) IS
'where each column of a pipeline''s sinks comes from, and their statements; for members of its owner';

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

CREATE FUNCTION @extschema@.spine_topic_offsets(topic text, since timestamptz, server name, as_role regrole DEFAULT NULL,
	OUT partition integer, OUT first_offset bigint, OUT end_offset bigint,
	OUT since_offset bigint, OUT cluster_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_topic_offsets'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz, name, regrole) IS
'the same of another server, as a role uses it: NULL means the current user';
REVOKE ALL ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz, name, regrole) FROM PUBLIC;

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

CREATE FUNCTION @extschema@.spine_produce(tenant text, n integer, server name)
RETURNS bigint
AS 'MODULE_PATHNAME', 'spine_produce'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_produce(text, integer, name) IS
'the same, to the topic of another server';
REVOKE ALL ON FUNCTION @extschema@.spine_produce(text, integer, name) FROM PUBLIC;

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
	-- the cluster of spine.brokers has no USAGE to ask for, and the server's own secrets
	IF after.server IS NULL AND before.server IS NOT NULL AND NOT has_function_privilege(caller,
		'@extschema@.spine_create_pipeline(name, text, regclass, text, name[], name, jsonb, text, name, text, regrole, boolean, boolean)', 'EXECUTE') THEN
		RAISE EXCEPTION 'permission denied to let pipeline "%" read from the cluster of spine.brokers', before.name
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'It takes the right to execute spine_create_pipeline.';
	END IF;
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

--
-- Members of a pipeline's owner pause, resume and seek: EXECUTE is for everybody
--

CREATE OR REPLACE FUNCTION @extschema@.spine_pause(pipeline name)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT @extschema@.spine_alter_pipeline(pipeline, jsonb '{"enabled": false}')
$$;
COMMENT ON FUNCTION @extschema@.spine_pause(name) IS 'stop a pipeline after its current batch; its position is kept';
REVOKE ALL ON FUNCTION @extschema@.spine_pause(name) FROM CURRENT_USER;
GRANT EXECUTE ON FUNCTION @extschema@.spine_pause(name) TO PUBLIC, CURRENT_USER;

CREATE OR REPLACE FUNCTION @extschema@.spine_resume(pipeline name)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT @extschema@.spine_alter_pipeline(pipeline, jsonb '{"enabled": true}')
$$;
COMMENT ON FUNCTION @extschema@.spine_resume(name) IS 'let a paused pipeline go on from where it stopped';
REVOKE ALL ON FUNCTION @extschema@.spine_resume(name) FROM CURRENT_USER;
GRANT EXECUTE ON FUNCTION @extschema@.spine_resume(name) TO PUBLIC, CURRENT_USER;

CREATE FUNCTION @extschema@.spine_find_topics(topics text, server name DEFAULT NULL, as_role regrole DEFAULT NULL,
	OUT topic text, OUT partitions integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_find_topics'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_find_topics(text, name, regrole) IS
'the topics that a list or a regular expression stands for; those of a list that do not exist have no partitions';
REVOKE ALL ON FUNCTION @extschema@.spine_find_topics(text, name, regrole) FROM PUBLIC;

DROP FUNCTION @extschema@.spine_move_positions(name, integer, bigint, timestamptz, text);

-- What the functions spine_seek share.  Exactly one of the last three arguments is not
-- null and says where to go.  The rows are locked in the order in which the workers lock
-- them.
CREATE FUNCTION @extschema@.spine_move_positions_as(
	caller oid, of_pipeline name, of_topic text, of_partition integer, to_offset bigint, since timestamptz, place text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	of_row		@extschema@.spine_pipelines := @extschema@.spine_lock_pipeline(caller, of_pipeline);
	topics		text := @extschema@.spine_pipeline_topic(of_row.topic);
	counts		jsonb;		-- how many partitions each topic has
	log			record;
	went_back	boolean := false;
	repeated	regclass;
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	IF num_nonnulls(to_offset, since, place) = 0 THEN
		RAISE EXCEPTION 'the target of spine_seek must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF NOT @extschema@.spine_topic_matches(of_topic, topics) THEN
		RAISE EXCEPTION 'pipeline "%" does not read topic "%"', of_pipeline, of_topic
			USING ERRCODE = 'invalid_parameter_value',
				  DETAIL = format('It reads "%s".', topics);
	END IF;
	IF of_topic IS NULL AND of_partition IS NOT NULL AND topics ~ '^\^|,' THEN
		RAISE EXCEPTION 'pipeline "%" reads several topics, and each has a partition %', of_pipeline, of_partition
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = 'Say which topic: spine_seek(pipeline, partition, target, topic).';
	END IF;

	SELECT jsonb_object_agg(t.topic, t.partitions)
	INTO counts
	FROM @extschema@.spine_find_topics(coalesce(of_topic, topics), of_row.server, of_row.owner) t
	WHERE t.partitions > 0;
	IF counts IS NULL THEN
		RAISE EXCEPTION 'topic "%" does not exist', coalesce(of_topic, topics)
			USING ERRCODE = 'undefined_object';
	END IF;
	IF of_partition IS NOT NULL AND of_partition NOT BETWEEN 0 AND (counts ->> coalesce(of_topic, topics))::integer - 1 THEN
		RAISE EXCEPTION 'topic "%" has no partition %', coalesce(of_topic, topics), of_partition
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	FOR log IN
		SELECT c.topic, t.partition, t.first_offset, t.end_offset, t.cluster_id,
			   CASE WHEN to_offset IS NOT NULL THEN to_offset
					WHEN since IS NOT NULL THEN t.since_offset
					WHEN place = 'earliest' THEN t.first_offset
					ELSE t.end_offset END AS next_offset
		FROM jsonb_object_keys(counts) c (topic)
		CROSS JOIN LATERAL @extschema@.spine_topic_offsets(c.topic, since, of_row.server, of_row.owner) t
		WHERE of_partition IS NULL OR t.partition = of_partition
		ORDER BY 1, 2
	LOOP
		IF log.next_offset NOT BETWEEN log.first_offset AND log.end_offset THEN
			RAISE EXCEPTION 'partition % of topic "%" has no offset %', log.partition, log.topic, log.next_offset
				USING ERRCODE = 'invalid_parameter_value',
					  DETAIL = format('The partition begins at offset %s and ends before offset %s.', log.first_offset, log.end_offset);
		END IF;
		IF (of_partition IS NOT NULL OR of_topic <> topics) AND EXISTS (
			SELECT FROM @extschema@.spine_offsets o
			WHERE o.pipeline = of_pipeline AND @extschema@.spine_topic_matches(o.topic, topics)
				AND o.cluster_id <> log.cluster_id) THEN
			RAISE EXCEPTION 'the positions of pipeline "%" belong to another cluster', of_pipeline
				USING ERRCODE = 'object_not_in_prerequisite_state',
					  HINT = 'Move all partitions at once: give NULL as the partition, and no topic.';
		END IF;

		topic := log.topic;
		partition := log.partition;
		new_offset := log.next_offset;
		SELECT o.next_offset
		INTO old_offset
		FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND o.topic = log.topic AND o.partition = log.partition
		FOR UPDATE;
		INSERT INTO @extschema@.spine_offsets AS o (pipeline, topic, partition, next_offset, cluster_id)
		VALUES (of_pipeline, log.topic, log.partition, log.next_offset, log.cluster_id)
		ON CONFLICT (pipeline, topic, partition) DO UPDATE
		SET next_offset = EXCLUDED.next_offset, cluster_id = EXCLUDED.cluster_id, updated_at = now(),
			worker_next_offset = NULL, mark_offset = NULL, mark_crc = NULL;
		went_back := went_back OR coalesce(new_offset < old_offset, false);
		RETURN NEXT;
	END LOOP;

	IF of_partition IS NULL THEN
		DELETE FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND @extschema@.spine_topic_matches(o.topic, coalesce(of_topic, topics))
			AND o.partition >= coalesce((counts ->> o.topic)::integer, 0);
	END IF;

	FOR repeated IN
		SELECT s.target
		FROM @extschema@.spine_sinks s
		WHERE went_back AND s.pipeline = of_pipeline AND s.mode = 'upsert' AND s.version IS NULL
		ORDER BY s.ordinal
	LOOP
		RAISE NOTICE 'table % passes through older states again, and ends in the right one', repeated
			USING DETAIL = 'Its sink has no version, so the order of the log decides.';
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_move_positions_as(oid, name, text, integer, bigint, timestamptz, text) IS
'part of spine_seek';
REVOKE ALL ON FUNCTION @extschema@.spine_move_positions_as(oid, name, text, integer, bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_move_positions(
	of_pipeline name, of_topic text, of_partition integer, to_offset bigint, since timestamptz, place text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_move_positions(name, text, integer, bigint, timestamptz, text) IS
'part of spine_seek';
GRANT EXECUTE ON FUNCTION @extschema@.spine_move_positions(name, text, integer, bigint, timestamptz, text) TO PUBLIC;

CREATE OR REPLACE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target bigint)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.partition, m.old_offset, m.new_offset
	FROM @extschema@.spine_move_positions(of_pipeline, NULL::text, of_partition, target, NULL::timestamptz, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, bigint) IS
'let a pipeline go on from an offset of a partition (NULL: of each)';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, bigint) FROM CURRENT_USER;
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, bigint) TO PUBLIC, CURRENT_USER;

CREATE OR REPLACE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target timestamptz)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.partition, m.old_offset, m.new_offset
	FROM @extschema@.spine_move_positions(of_pipeline, NULL::text, of_partition, NULL::bigint, target, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) IS
'let a pipeline go on from the first record of a partition (NULL: of each) that is not older than a time';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) FROM CURRENT_USER;
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) TO PUBLIC, CURRENT_USER;

-- A quoted offset or time, which has no type yet, comes here.
CREATE OR REPLACE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.partition, s.old_offset, s.new_offset
	FROM @extschema@.spine_seek(of_pipeline, of_partition, target, NULL::text) s
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, text) IS
'let a pipeline go on from the start (''earliest'') or the end (''latest'') of a partition (NULL: of each)';
REVOKE ALL ON FUNCTION @extschema@.spine_seek(name, integer, text) FROM CURRENT_USER;
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, text) TO PUBLIC, CURRENT_USER;

-- In a pipeline that reads several topics, a partition has to be named with its topic.
CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target bigint, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(of_pipeline, of_topic, of_partition, target, NULL::timestamptz, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, bigint, text) IS
'let a pipeline go on from an offset of a partition (NULL: of each), of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, bigint, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target timestamptz, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(of_pipeline, of_topic, of_partition, NULL::bigint, target, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz, text) IS
'let a pipeline go on from the first record of a partition (NULL: of each) that is not older than a time, of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(
		of_pipeline, of_topic, of_partition,
		CASE WHEN target ~ '^-?\d+$' THEN target::bigint END,
		CASE WHEN target !~ '^-?\d+$' AND target NOT IN ('earliest', 'latest') THEN target::timestamptz END,
		CASE WHEN target IN ('earliest', 'latest') THEN target END) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, text, text) IS
'let a pipeline go on from the start (''earliest'') or the end (''latest'') of a partition (NULL: of each), of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, text, text) TO PUBLIC;

--
-- Dead letters are seen by members of the pipeline's owner
--

ALTER TABLE @extschema@.spine_dead_letters ADD COLUMN owner regrole;
COMMENT ON COLUMN @extschema@.spine_dead_letters.owner IS
'the pipeline''s owner, whose members see the row; NULL: that is not known';
UPDATE @extschema@.spine_dead_letters d
SET owner = p.owner
FROM @extschema@.spine_pipelines p
WHERE p.name = d.pipeline;

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

--
-- Looking before leaping: what is on a topic, and what a table for it could be
--

CREATE FUNCTION @extschema@.spine_peek(
	topic text, n integer DEFAULT 10, at text DEFAULT 'latest', server name DEFAULT NULL,
	OUT partition integer, OUT "offset" bigint, OUT "timestamp" timestamptz,
	OUT key jsonb, OUT value jsonb, OUT headers jsonb, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_peek'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_peek(text, integer, text, name) IS
'n records of a topic; at: latest, earliest, a time, an offset, or offsets as {"partition": offset}';
REVOKE ALL ON FUNCTION @extschema@.spine_peek(text, integer, text, name) FROM PUBLIC;

-- What follows only reads through spine_peek, with the rights of its caller.  Arguments have
-- exactly the types of the functions that are meant, so that another role's are not taken.

-- Do all texts have the shape, and are they values of the type?  The shape comes first,
-- because the types take more than what anybody would call a date.
CREATE FUNCTION @extschema@.spine_all_are(texts text[], shape text, of_type regtype)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
	IF EXISTS (SELECT FROM unnest(texts) t WHERE t !~ shape) THEN
		RETURN false;
	END IF;
	EXECUTE format('SELECT count(t::%s) FROM unnest($1) t', of_type) USING texts;
	RETURN true;
EXCEPTION
	WHEN data_exception THEN
		RETURN false;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_all_are(text[], text, regtype) IS 'part of spine_infer';

-- The narrowest type that takes all of these values, none of which is null.
CREATE FUNCTION @extschema@.spine_infer_type(samples jsonb[], OUT type text, OUT note text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kinds	text[] := ARRAY(SELECT DISTINCT jsonb_typeof(v) FROM unnest(samples) v ORDER BY 1);
	texts	text[] := ARRAY(SELECT v #>> '{}' FROM unnest(samples) v);
	day		text := '\d{4}-\d{2}-\d{2}';
	clock	text := '[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?';
	zone	text := '(Z|[+-]\d{2}(:?\d{2})?)';
BEGIN
	IF kinds = '{}' THEN
		type := 'jsonb';
		note := 'only null was seen';
	ELSIF kinds && '{array,object}' THEN
		type := 'jsonb';
		note := CASE WHEN cardinality(kinds) > 1 THEN array_to_string(kinds, ' or ') END;
	ELSIF cardinality(kinds) > 1 THEN
		type := 'text';
		note := array_to_string(kinds, ' or ');
	ELSIF kinds = '{boolean}' THEN
		type := 'boolean';
	ELSIF kinds = '{number}' THEN
		type := CASE WHEN @extschema@.spine_all_are(texts, '^-?\d+$'::text, 'bigint'::regtype) THEN 'bigint' ELSE 'numeric' END;
		SELECT format('perhaps %s since 1970: then make it timestamptz, with {"path": ..., "as": "%s"} below', r.unit, r.reading)
		INTO note
		FROM (VALUES (1e9, 'seconds', 'epoch_s'), (1e12, 'milliseconds', 'epoch_ms'), (1e15, 'microseconds', 'epoch_us')) r (low, unit, reading)
		WHERE NOT EXISTS (SELECT FROM unnest(texts) t WHERE t::numeric NOT BETWEEN r.low AND 4 * r.low);
	ELSIF @extschema@.spine_all_are(texts, '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'::text, 'uuid'::regtype) THEN
		type := 'uuid';
	ELSIF @extschema@.spine_all_are(texts, ('^' || day || '$')::text, 'date'::regtype) THEN
		type := 'date';
	ELSIF @extschema@.spine_all_are(texts, ('^' || day || '(' || clock || zone || '?)?$')::text, 'timestamptz'::regtype) THEN
		type := 'timestamptz';
		note := CASE WHEN EXISTS (SELECT FROM unnest(texts) t WHERE t !~ (clock || zone || '$'))
					 THEN 'read as UTC where there is no zone' END;
	ELSE
		type := 'text';
		note := CASE WHEN @extschema@.spine_all_are(texts, '^-?\d+(\.\d+)?$'::text, 'numeric'::regtype)
					 THEN 'numbers in quotes: numeric would take them' END;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_type(jsonb[]) IS 'part of spine_infer';

-- The fields of objects: their members, and instead of a small object that always has the
-- same members, the members of that one.  of_key: whether the field always is the record's
-- key ('whole'), or a member of a key whose members are all in the record ('member').
CREATE FUNCTION @extschema@.spine_infer_fields(keys jsonb[], objects jsonb[])
RETURNS TABLE (path text[], type text, seen bigint, nulls bigint, distinct_values bigint,
			   of_key text, examples text[], note text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH sample AS (
		SELECT CASE WHEN jsonb_typeof(s.key) <> 'object' OR s.object @> s.key THEN s.key END AS key, s.object
		FROM unnest(keys, objects) s (key, object)
	), member AS (
		SELECT s.key, m.key AS name, m.value, jsonb_typeof(m.value) AS kind
		FROM sample s, jsonb_each(s.object) m
	), inner_member AS (
		SELECT m.key, m.name AS outer_name, i.key AS name, i.value
		FROM member m, jsonb_each(CASE m.kind WHEN 'object' THEN m.value ELSE '{}' END) i
	), taken_apart AS (
		SELECT i.outer_name AS name
		FROM inner_member i
		GROUP BY 1
		HAVING count(DISTINCT i.name) <= 8
			AND bool_and(jsonb_typeof(i.value) NOT IN ('object', 'array'))
			AND count(*) = count(DISTINCT i.name) * (SELECT count(*) FROM member m WHERE m.name = i.outer_name AND m.kind = 'object')
			AND NOT EXISTS (SELECT FROM member m WHERE m.name = i.outer_name AND m.kind NOT IN ('object', 'null'))
	), field AS (
		SELECT ARRAY[m.name] AS path, m.value,
			   CASE jsonb_typeof(m.key) WHEN 'object' THEN m.key -> m.name ELSE m.key END AS key
		FROM member m
		WHERE m.name NOT IN (SELECT t.name FROM taken_apart t)
		UNION ALL
		SELECT ARRAY[i.outer_name, i.name], i.value,
			   CASE jsonb_typeof(i.key) WHEN 'object' THEN NULL ELSE i.key END
		FROM inner_member i
		WHERE i.outer_name IN (SELECT t.name FROM taken_apart t)
	), summary AS (
		SELECT f.path, count(*) AS seen, count(*) FILTER (WHERE f.value = 'null') AS nulls,
			   count(*) FILTER (WHERE f.key <> 'null' AND f.key #>> '{}' = f.value #>> '{}') = cardinality(objects) AS is_key,
			   coalesce(array_agg(DISTINCT f.value) FILTER (WHERE f.value <> 'null'), '{}') AS found
		FROM field f
		GROUP BY 1
	)
	SELECT s.path, t.type, s.seen, s.nulls, cardinality(s.found),
		   CASE WHEN s.is_key THEN CASE jsonb_typeof(keys[1]) WHEN 'object' THEN 'member' ELSE 'whole' END END,
		   ARRAY(SELECT left(v #>> '{}', 100) FROM unnest(s.found[:3]) v), t.note
	FROM summary s, @extschema@.spine_infer_type(s.found) t
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_fields(jsonb[], jsonb[]) IS 'part of spine_infer';

-- A name for a column that is not taken yet, neither by the server nor by the mapping "*".
CREATE FUNCTION @extschema@.spine_infer_name(wanted text, taken name[])
RETURNS name
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	suffix	text := '';
	n		integer := 1;
BEGIN
	wanted := coalesce(nullif(regexp_replace(wanted, '[[:cntrl:]]+', '_', 'g'), ''), 'column');
	LOOP
		WHILE octet_length(wanted || suffix) > 63 LOOP
			wanted := left(wanted, -1);
		END LOOP;
		IF (wanted || suffix)::name <> ALL (taken || '{tableoid,cmax,xmax,cmin,xmin,ctid,*}'::name[]) THEN
			RETURN wanted || suffix;
		END IF;
		n := n + 1;
		suffix := '_' || n;
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_name(text, name[]) IS 'part of spine_infer';

CREATE FUNCTION @extschema@.spine_infer_columns(topic text, n integer DEFAULT 1000, server name DEFAULT NULL)
RETURNS TABLE (column_name name, type text, path text, records bigint, seen bigint, nulls bigint,
			   distinct_values bigint, of_key text, examples text[], note text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	sample	record;
	field	record;
	taken	name[] := '{}';
	keyed	boolean := false;	-- a field repeats the record's key
BEGIN
	SELECT count(*) AS n,
		   array_agg(p.key) FILTER (WHERE jsonb_typeof(p.value) = 'object') AS keys,
		   array_agg(p.value) FILTER (WHERE jsonb_typeof(p.value) = 'object') AS objects,
		   min(p.error) FILTER (WHERE p.value IS NULL OR jsonb_typeof(p.value) <> 'object') AS error
	INTO sample
	FROM @extschema@.spine_peek(topic, n, 'latest'::text, server) p;
	IF sample.n = 0 THEN
		RAISE EXCEPTION 'topic "%" has no records', topic
			USING ERRCODE = 'no_data_found';
	ELSIF sample.objects IS NULL THEN
		RAISE EXCEPTION 'none of % records of topic "%" is a JSON object', sample.n, topic
			USING ERRCODE = 'data_exception', DETAIL = coalesce(sample.error, ''),
				  HINT = format('See SELECT * FROM spine_peek(%L).', topic);
	ELSIF cardinality(sample.objects) < sample.n THEN
		RAISE NOTICE '% of % records of topic "%" are no JSON objects', sample.n - cardinality(sample.objects), sample.n, topic
			USING DETAIL = coalesce(sample.error, '');
	END IF;

	records := cardinality(sample.objects);
	FOR field IN
		SELECT *
		FROM @extschema@.spine_infer_fields(sample.keys, sample.objects) f
		ORDER BY f.of_key IS NULL, f.path
	LOOP
		column_name := @extschema@.spine_infer_name(array_to_string(field.path, '_'), taken);
		taken := taken || column_name;
		keyed := keyed OR field.of_key IS NOT NULL;
		type := field.type;
		path := CASE WHEN cardinality(field.path) = 1 AND field.path[1] ~ '^[^$*]' THEN field.path[1]
					 ELSE (SELECT '$' || string_agg('.' || CASE WHEN step ~ '^[A-Za-z_][A-Za-z0-9_]*$' THEN step
																ELSE to_jsonb(step)::text END, '' ORDER BY i)
						   FROM unnest(field.path) WITH ORDINALITY s (step, i)) END;
		seen := field.seen;
		nulls := field.nulls;
		distinct_values := field.distinct_values;
		of_key := field.of_key;
		examples := field.examples;
		note := field.note;
		RETURN NEXT;
	END LOOP;

	IF NOT keyed AND (SELECT bool_and(coalesce(jsonb_typeof(k) IN ('string', 'number'), false)) FROM unnest(sample.keys) k) THEN
		column_name := @extschema@.spine_infer_name('record_key', taken);
		path := '$key';
		SELECT t.type, count(DISTINCT k), (array_agg(DISTINCT left(k #>> '{}', 100)))[:3]
		INTO type, distinct_values, examples
		FROM @extschema@.spine_infer_type(sample.keys) t, unnest(sample.keys) k
		GROUP BY 1;
		seen := records;
		nulls := 0;
		of_key := CASE WHEN distinct_values = records THEN 'whole' END;
		note := 'the record''s key, which is in no field';
		RETURN NEXT;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_columns(text, integer, name) IS
'what the last n records of a topic, which are JSON objects, consist of: the columns of a table for them';
REVOKE ALL ON FUNCTION @extschema@.spine_infer_columns(text, integer, name) FROM PUBLIC;

-- The columns that tell records apart, and how that is known.
CREATE FUNCTION @extschema@.spine_infer_key(columns jsonb, OUT key name[], OUT reason text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	of_record	record;		-- the record's key
	id			name;		-- a field that differs in all records, and is called so
BEGIN
	SELECT array_agg(c.column_name ORDER BY c.column_name) FILTER (WHERE c.of_key = 'member') AS members,
		   (array_agg(c.column_name ORDER BY c.column_name !~* 'id$', length(c.column_name), c.column_name)
			FILTER (WHERE c.of_key = 'whole'))[1] AS whole,
		   coalesce(max(c.distinct_values) FILTER (WHERE c.of_key = 'whole') = max(c.records), true) AS differs
	INTO of_record
	FROM jsonb_to_recordset(columns) c (column_name name, records bigint, distinct_values bigint, of_key text);
	SELECT c.column_name
	INTO id
	FROM jsonb_to_recordset(columns) c (column_name name, type text, records bigint, distinct_values bigint)
	WHERE c.type IN ('bigint', 'uuid', 'text') AND c.records > 1 AND c.distinct_values = c.records
		AND (c.column_name ~* '(^|_)(id|uuid|guid)$' OR c.column_name ~ '[a-z]I[dD]$')
	ORDER BY length(c.column_name), c.column_name
	LIMIT 1;

	IF of_record.members IS NOT NULL THEN
		key := of_record.members;
		reason := 'These columns are the record''s key: ' || array_to_string(key, ', ');
	ELSIF of_record.whole IS NOT NULL AND (of_record.differs OR id IS NULL) THEN
		key := ARRAY[of_record.whole];
		reason := format('The record''s key is %I in every record that was read. A later record replaces the row.', of_record.whole);
	ELSIF id IS NOT NULL THEN
		key := ARRAY[id];
		reason := format('%I differs in all records that were read. If it comes again, the later record replaces the row.', id)
			|| coalesce(format(' %s, the record''s key, is the same in many records.', quote_ident(of_record.whole)), '');
	ELSE
		reason := 'No column tells records apart: each record becomes a row. Its place in the log is the key, so that a record that is read again is not doubled.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_key(jsonb) IS 'part of spine_infer';

-- What comes from a topic, made fit for a comment that ends with its line.
CREATE FUNCTION @extschema@.spine_infer_comment(remark text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '-- ' || regexp_replace(remark, '[[:cntrl:]]+', ' ', 'g')
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_comment(text) IS 'part of spine_infer';

-- Everything that comes from the topic is quoted, or in a comment.
CREATE FUNCTION @extschema@.spine_infer(
	topic text, n integer DEFAULT 1000, server name DEFAULT NULL, table_name text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	columns		jsonb;
	names		name[];			-- of the table
	log_place	name[] := '{}';	-- columns for the place in the log
	key			record;
	lines		text;
	sources		text;
	target		text;
BEGIN
	SELECT jsonb_agg(c)
	INTO columns
	FROM (SELECT * FROM @extschema@.spine_infer_columns(topic, n, server) LIMIT 500) c;
	names := CASE WHEN table_name IS NULL THEN ARRAY[lower(regexp_replace(topic, '[^A-Za-z0-9_]+', '_', 'g'))]
				  ELSE parse_ident(table_name) END;
	target := (SELECT string_agg(quote_ident(part), '.') FROM unnest(names) part);
	key := @extschema@.spine_infer_key(columns);
	IF key.key IS NULL THEN
		log_place := ARRAY(SELECT @extschema@.spine_infer_name(wanted, ARRAY(SELECT c ->> 'column_name' FROM jsonb_array_elements(columns) c)::name[])
						   FROM unnest('{kafka_partition,kafka_offset}'::text[]) wanted);
	END IF;

	SELECT string_agg(concat(E'\t', quote_ident(c.column_name), ' ', c.type,
							 CASE WHEN c.column_name = ANY (key.key) THEN ' NOT NULL' END, ',',
							 E'\t' || @extschema@.spine_infer_comment(nullif(concat_ws('; ', c.note,
								CASE WHEN c.seen < c.records THEN format('absent in %s of %s', c.records - c.seen, c.records) END), '')),
							 E'\n'), '' ORDER BY c.i),
		   string_agg(concat(to_jsonb(c.column_name), ': ', to_jsonb(c.path)), E',\n\t\t' ORDER BY c.i)
	INTO lines, sources
	FROM ROWS FROM (jsonb_to_recordset(columns) AS (column_name text, type text, path text, records bigint, seen bigint, note text))
		WITH ORDINALITY c (column_name, type, path, records, seen, note, i);
	IF key.key IS NULL THEN
		lines := concat(lines, format(E'\t%I integer NOT NULL,\n\t%I bigint NOT NULL,\n', log_place[1], log_place[2]));
		sources := concat_ws(E',\n\t\t', sources, concat(to_jsonb(log_place[1]), ': "$partition"'),
							 concat(to_jsonb(log_place[2]), ': "$offset"'));
	END IF;

	RETURN concat(
		@extschema@.spine_infer_comment(format('What %s records of topic "%s" suggest.  Read this before you run it.',
											   columns -> 0 -> 'records', topic)), E'\n',
		@extschema@.spine_infer_comment(key.reason), E'\n',
		'CREATE TABLE ', target, E' (\n', lines,
		E'\tPRIMARY KEY (', (SELECT string_agg(quote_ident(k), ', ') FROM unnest(coalesce(key.key, log_place)) k), E')\n);\n',
		E'SELECT @extschema@.spine_create_pipeline(\n\tname => ', quote_literal(names[cardinality(names)]),
		E',\n\ttopic => ', quote_literal(topic),
		E',\n\ttarget => ', quote_literal(target),
		E',\n\tmode => ', CASE WHEN key.key IS NULL THEN quote_literal('append') ELSE quote_literal('upsert') END,
		E',\n\tkey => ', quote_literal(coalesce(key.key, log_place)::text),
		E',\n\tserver => ' || quote_literal(server),
		E',\n\tcolumns => ', quote_literal(concat(E'{\n\t\t', sources, E'\n\t}')),
		E');\n');
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer(text, integer, name, text) IS
'SQL to read and run: a table for what the last n records of a topic consist of, and a pipeline into it';
REVOKE ALL ON FUNCTION @extschema@.spine_infer(text, integer, name, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_preview(
	pipeline name, n integer DEFAULT 100, at text DEFAULT 'current',
	OUT topic text, OUT partition integer, OUT "offset" bigint, OUT sink regclass, OUT action text,
	OUT new_row jsonb, OUT old_row jsonb, OUT sqlstate text, OUT reason text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_preview'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_preview(name, integer, text) IS
'what a pipeline would do to the n records that it reads next (at: current), or to others: applied, and rolled back';
GRANT EXECUTE ON FUNCTION @extschema@.spine_preview(name, integer, text) TO PUBLIC;

--
-- Comments in plainer words
--

CREATE OR REPLACE FUNCTION @extschema@.spine_readiness(OUT ready boolean, OUT report jsonb)
LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(bool_and(p.state <> 'failed'), true),
		   jsonb_build_object(
			   'status', CASE WHEN bool_or(p.state = 'failed') THEN 'not ready' ELSE 'ready' END,
			   'pipelines', coalesce(jsonb_agg(p ORDER BY p.pipeline), '[]'))
	FROM (
		SELECT s.pipeline,
			   -- the worst state of its workers
			   (array_agg(s.state ORDER BY array_position(
				   ARRAY['failed', 'waiting', 'stopped', 'starting', 'paused', 'running'], s.state)))[1] AS state,
			   CASE WHEN count(s.partition) = count(s.lag) THEN sum(s.lag) END AS lag,
			   sum(s.events_total) AS events_total,
			   sum(s.dead_letters_total) AS dead_letters_total
		FROM @extschema@.spine_status s
		GROUP BY 1
	) p
$$;
COMMENT ON TABLE @extschema@.spine_pipelines IS 'the topic that each pipeline reads, and the role that it applies records as';
COMMENT ON COLUMN @extschema@.spine_sinks.columns IS
'column -> source; NULL: each column, from the key of the same name';
COMMENT ON TABLE @extschema@.spine_offsets IS
'the position of each partition, written in the transaction that applied the records before it';
COMMENT ON COLUMN @extschema@.spine_offsets.worker_next_offset IS
'next_offset as a worker last wrote it; where the two differ, the position was moved by hand and the mark means nothing';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_offset IS
'offset of the last record before next_offset; a worker reads that record again when it starts, to tell whether this is still the same log';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_crc IS 'checksum of the record at mark_offset (CRC-32C of timestamp, key and value)';
COMMENT ON FUNCTION @extschema@.spine_wait(interval) IS
'wait until everything that is on the topics at the time of the call is applied and visible; false on timeout';
COMMENT ON COLUMN @extschema@.events.kafka_offset IS 'the offset of the event in that partition';
COMMENT ON COLUMN @extschema@.events.applied_at IS 'start of the transaction that applied the event';
COMMENT ON TABLE @extschema@.spine_order_totals IS
'totals of current_orders, exact at every commit; a total is the sum over its sessions';
COMMENT ON COLUMN @extschema@.spine_order_totals.newest IS 'no order that is counted in this row is newer';
COMMENT ON FUNCTION @extschema@.spine_count_orders() IS 'trigger function of current_orders: keeps spine_order_totals up to date';
COMMENT ON FUNCTION @extschema@.spine_recount_orders() IS
'count the totals again, after current_orders was changed with its triggers disabled';
COMMENT ON TYPE @extschema@.spine_order IS
'a row of current_orders as spine_orders shows it, whatever columns are added to the table';
COMMENT ON FUNCTION @extschema@.spine_walk_orders(text, text, timestamptz, integer, integer) IS
'orders of one tenant, newest first, found through its newest events; part of spine_orders';
COMMENT ON FUNCTION @extschema@.spine_orders(text, text, integer) IS
'orders, the newest first, of all tenants or one, in any status or one';
COMMENT ON FUNCTION @extschema@.spine_readiness() IS
'false when a pipeline has failed; and the state of each pipeline';
