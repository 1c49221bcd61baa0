--
-- Orders as spine-http serves them
--

-- An index on updated_at would change with every event.  Instead, the newest orders are
-- found through events: updated_at is the time of an order's newest event, and the key
-- of events has these times in order.  The first two functions are part of the third and
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

-- For all tenants, a few orders of each tenant with something new tell how old the last
-- row of the result can be.  No tenant is then walked back beyond that time.  The
-- settings keep the planner from sorting all events, whatever the statistics say.
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
		  FROM @extschema@.spine_order_totals t
		  WHERE of_tenant IS NULL OR t.tenant = of_tenant
		  GROUP BY 1, 2, 3
		  HAVING sum(t.orders) <> 0) s
	GROUP BY 1, 2
	ORDER BY 3 DESC, 1, 2
$$;
COMMENT ON FUNCTION @extschema@.spine_stats(text) IS
'orders and revenue per tenant and currency, in all and by status; cancelled orders carry no revenue';
