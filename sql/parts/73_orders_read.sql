--
-- Orders as spine-http serves them
--

-- An index on updated_at would change with every event.  Instead, the newest orders of a
-- tenant are found through events: updated_at is the time of an order's newest event, and
-- the key of events has these times in order.  The newest orders of all tenants are found
-- through spine_order_changes.  The first three functions are part of spine_orders and
-- run with its settings; they are plpgsql because that keeps their plans.

CREATE TYPE @extschema@.spine_order AS (
	order_id		text,
	tenant			text,
	status			text,
	amount_cents	bigint,
	currency		text,
	updated_at		timestamptz
);
COMMENT ON TYPE @extschema@.spine_order IS
'a row of current_orders as spine_orders shows it, whatever columns are added to the table';

-- Walks back over the newest max_events events of a tenant that are not older than
-- `since`, and returns their orders, newest first.
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
COMMENT ON FUNCTION @extschema@.spine_walk_orders(text, text, timestamptz, integer, integer) IS
'orders of one tenant, newest first, found through its newest events; part of spine_orders';

-- The newest orders of a tenant that are not older than `since`, newest first.  Where
-- the walk over events does not help (few orders with many events each, a rare status,
-- deleted events), the tenant's orders are sorted.
CREATE FUNCTION @extschema@.spine_tenant_orders(
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
COMMENT ON FUNCTION @extschema@.spine_tenant_orders(text, text, timestamptz, integer) IS
'the newest orders of one tenant; part of spine_orders';

-- The orders that the newest changes list, until they list max_orders.  All orders that
-- are newer than `since` are among them, and if `since` is null, all orders are.
CREATE FUNCTION @extschema@.spine_changed_orders(
	max_orders integer, OUT tenants text[], OUT order_ids text[], OUT since timestamptz)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	change	record;
	times	timestamptz[] := '{}';
	is_cut	boolean := false;
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

	-- an order that is as new as `since` is listed with its time
	SELECT coalesce(array_agg(l.tenant), '{}'), coalesce(array_agg(l.order_id), '{}')
	INTO tenants, order_ids
	FROM (SELECT DISTINCT u.tenant, u.order_id
		  FROM unnest(tenants, order_ids, times) AS u (tenant, order_id, updated_at)
		  WHERE since IS NULL OR u.updated_at >= since) l;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_changed_orders(integer) IS
'the orders that the newest changes have written; part of spine_orders';

-- For all tenants, the newest changes mostly list what is asked for.  Otherwise (a rare
-- status, new events of a few orders only, deleted orders) a few orders of each tenant
-- with something new tell how old the last row of the result can be.  No tenant is then
-- walked back beyond that time.  The settings keep the planner from sorting all events,
-- whatever the statistics say.
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
	FOREACH max_listed IN ARRAY ARRAY[least(max_rows, 1000), 10000] LOOP
		changed := @extschema@.spine_changed_orders(max_listed);
		listed := ARRAY(
			SELECT ROW(o.order_id, o.tenant, o.status, o.amount_cents, o.currency, o.updated_at)::@extschema@.spine_order
			FROM unnest(changed.tenants, changed.order_ids) AS u (tenant, order_id)
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
COMMENT ON FUNCTION @extschema@.spine_orders(text, text, integer) IS
'orders, the newest first, of all tenants or one, in any status or one';

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
		  FROM (SELECT * FROM @extschema@.spine_order_totals WHERE of_tenant IS NULL
				UNION ALL
				SELECT * FROM @extschema@.spine_order_totals WHERE tenant = of_tenant) t
		  GROUP BY 1, 2, 3
		  HAVING sum(t.orders) <> 0) s
	GROUP BY 1, 2
	ORDER BY 3 DESC, 1, 2
$$;
COMMENT ON FUNCTION @extschema@.spine_stats(text) IS
'orders and revenue per tenant and currency, in all and by status; cancelled orders carry no revenue';

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
CREATE FUNCTION @extschema@.spine_tenants_named(beginning text, n integer)
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
		WHERE c.tenant >= beginning
		GROUP BY c.tenant
		HAVING sum(c.orders) > 0
		ORDER BY c.tenant
	LOOP
		EXIT WHEN found_names = n OR NOT starts_with(found_name, beginning);
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
	of_tenant text DEFAULT NULL, name_begins text DEFAULT NULL, max_tenants integer DEFAULT 100)
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
	others		bigint;		-- how many; null: more than 10000
BEGIN
	IF max_tenants IS NULL OR max_tenants NOT BETWEEN 1 AND 100000 THEN
		RAISE EXCEPTION 'max_tenants must be between 1 and 100000'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	IF of_tenant IS NOT NULL THEN
		shown := ARRAY[of_tenant];
	ELSIF name_begins IS NOT NULL THEN
		shown := ARRAY(SELECT t FROM @extschema@.spine_tenants_named(name_begins, max_tenants) t);
	ELSE
		shown := ARRAY(SELECT t.tenant FROM @extschema@.spine_largest_tenants(max_tenants) t);
	END IF;

	has_others := of_tenant IS NULL AND name_begins IS NULL AND cardinality(shown) = max_tenants;
	IF has_others THEN
		SELECT CASE WHEN count(*) <= max_tenants + 10000 THEN count(*) - max_tenants END
		INTO others
		FROM (SELECT c.tenant
			  FROM @extschema@.spine_order_counts c
			  GROUP BY c.tenant
			  HAVING sum(c.orders) > 0
			  ORDER BY c.tenant
			  LIMIT max_tenants + 10001) t;
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
