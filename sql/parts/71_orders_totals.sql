--
-- Totals of current_orders.  pg_dump need not keep them: the triggers count again when
-- current_orders is restored.
--

-- Triggers keep the totals up to date, in the transaction that changes current_orders, so
-- that nobody has to read all orders for them.  Each session counts in rows of its own: a
-- transaction that is left open makes no other session wait (unless it is a prepared
-- transaction: its session's number may be used again).
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
'totals of current_orders, exact at every commit; a total is the sum over its sessions';
COMMENT ON COLUMN @extschema@.spine_order_totals.session IS 'number of the session that counts in this row, see spine_session_number(); numbers are used again';
COMMENT ON COLUMN @extschema@.spine_order_totals.newest IS 'no order that is counted in this row is newer';

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

CREATE FUNCTION @extschema@.spine_session_number()
RETURNS integer
AS 'MODULE_PATHNAME', 'spine_session_number'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.spine_session_number() IS
'a number that no other session has at this time; a session has several in turn, all equal modulo 262144';

CREATE FUNCTION @extschema@.spine_session_adds_up()
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_session_adds_up'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.spine_session_adds_up() IS
'whether it is time for the session to add up its totals; part of spine_count_orders';
REVOKE ALL ON FUNCTION @extschema@.spine_session_adds_up() FROM PUBLIC;

-- Runs as the extension's owner: a role that may change orders need not have the right
-- to change the totals.
CREATE FUNCTION @extschema@.spine_count_orders()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	my_session	integer;
	change		bigint;
BEGIN
	-- in any other trigger, new_orders and old_orders could be temporary tables of the caller
	IF TG_RELID <> '@extschema@.current_orders'::regclass OR NOT EXISTS (
		SELECT FROM pg_trigger t
		WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
			AND t.tgname = CASE TG_OP WHEN 'INSERT' THEN 'spine_count_inserted'
									  WHEN 'UPDATE' THEN 'spine_count_updated'
									  WHEN 'DELETE' THEN 'spine_count_deleted'
									  ELSE 'spine_count_truncated' END
			AND (TG_OP NOT IN ('INSERT', 'UPDATE') OR t.tgnewtable = 'new_orders')
			AND (TG_OP NOT IN ('UPDATE', 'DELETE') OR t.tgoldtable = 'old_orders')) THEN
		RAISE EXCEPTION 'trigger "%" of table % is not one of spine''s own and must not run spine_count_orders',
				TG_NAME, TG_RELID::regclass
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'Drop the trigger.';
	END IF;
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_totals'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_sums'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_counts'::regclass);
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_order_changes'::regclass);
	my_session := @extschema@.spine_session_number();
	-- see spine_session_adds_up
	IF TG_OP <> 'TRUNCATE' AND @extschema@.spine_session_adds_up() THEN
		WITH mine AS (
			DELETE FROM @extschema@.spine_order_totals
			WHERE session > 262143 AND session % 262144 = my_session
			RETURNING *)
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT m.tenant, m.currency, m.status, my_session,
			   sum(m.orders), sum(m.amount_cents), max(m.newest)
		FROM mine m
		GROUP BY 1, 2, 3
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
		WITH mine AS (
			DELETE FROM @extschema@.spine_order_sums
			WHERE session > 262143 AND session % 262144 = my_session
			RETURNING *)
		INSERT INTO @extschema@.spine_order_sums AS t
		SELECT m.currency, m.status, my_session, sum(m.orders), sum(m.amount_cents)
		FROM mine m
		GROUP BY 1, 2
		ON CONFLICT (currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents;
		WITH mine AS (
			DELETE FROM @extschema@.spine_order_counts
			WHERE session > 262143 AND session % 262144 = my_session
			RETURNING *)
		INSERT INTO @extschema@.spine_order_counts AS t
		SELECT m.tenant, my_session, sum(m.orders)
		FROM mine m
		GROUP BY 1
		ON CONFLICT (tenant, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders;
	END IF;

	IF TG_OP = 'INSERT' THEN
		WITH counted AS MATERIALIZED (
			SELECT n.tenant, n.currency, n.status, count(*) AS orders,
				   sum(n.amount_cents) AS amount_cents, max(n.updated_at) AS newest
			FROM new_orders n
			GROUP BY 1, 2, 3
		), summed AS (
			INSERT INTO @extschema@.spine_order_sums AS t
			SELECT c.currency, c.status, my_session, sum(c.orders), sum(c.amount_cents)
			FROM counted c
			GROUP BY 1, 2
			ON CONFLICT (currency, status, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders,
				amount_cents = t.amount_cents + EXCLUDED.amount_cents
		), per_tenant AS (
			INSERT INTO @extschema@.spine_order_counts AS t
			SELECT c.tenant, my_session, sum(c.orders)
			FROM counted c
			GROUP BY 1
			HAVING sum(c.orders) <> 0
			ON CONFLICT (tenant, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders
		)
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT c.tenant, c.currency, c.status, my_session, c.orders, c.amount_cents, c.newest
		FROM counted c
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	ELSIF TG_OP = 'UPDATE' THEN
		WITH counted AS MATERIALIZED (
			SELECT d.tenant, d.currency, d.status, sum(d.orders) AS orders,
				   sum(d.orders * d.amount_cents::numeric) AS amount_cents, max(d.updated_at) AS newest
			FROM (
				SELECT tenant, currency, status, amount_cents, updated_at, 1 AS orders FROM new_orders
				UNION ALL
				SELECT tenant, currency, status, amount_cents, updated_at, -1 FROM old_orders
			) d
			GROUP BY 1, 2, 3
		), summed AS (
			INSERT INTO @extschema@.spine_order_sums AS t
			SELECT c.currency, c.status, my_session, sum(c.orders), sum(c.amount_cents)
			FROM counted c
			GROUP BY 1, 2
			ON CONFLICT (currency, status, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders,
				amount_cents = t.amount_cents + EXCLUDED.amount_cents
		), per_tenant AS (
			INSERT INTO @extschema@.spine_order_counts AS t
			SELECT c.tenant, my_session, sum(c.orders)
			FROM counted c
			GROUP BY 1
			HAVING sum(c.orders) <> 0
			ON CONFLICT (tenant, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders
		)
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT c.tenant, c.currency, c.status, my_session, c.orders, c.amount_cents, c.newest
		FROM counted c
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	ELSIF TG_OP = 'DELETE' THEN
		WITH counted AS MATERIALIZED (
			SELECT o.tenant, o.currency, o.status, -count(*) AS orders,
				   -sum(o.amount_cents) AS amount_cents, max(o.updated_at) AS newest
			FROM old_orders o
			GROUP BY 1, 2, 3
		), summed AS (
			INSERT INTO @extschema@.spine_order_sums AS t
			SELECT c.currency, c.status, my_session, sum(c.orders), sum(c.amount_cents)
			FROM counted c
			GROUP BY 1, 2
			ON CONFLICT (currency, status, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders,
				amount_cents = t.amount_cents + EXCLUDED.amount_cents
		), per_tenant AS (
			INSERT INTO @extschema@.spine_order_counts AS t
			SELECT c.tenant, my_session, sum(c.orders)
			FROM counted c
			GROUP BY 1
			HAVING sum(c.orders) <> 0
			ON CONFLICT (tenant, session) DO UPDATE
			SET orders = t.orders + EXCLUDED.orders
		)
		INSERT INTO @extschema@.spine_order_totals AS t
		SELECT c.tenant, c.currency, c.status, my_session, c.orders, c.amount_cents, c.newest
		FROM counted c
		ON CONFLICT (tenant, currency, status, session) DO UPDATE
		SET orders = t.orders + EXCLUDED.orders,
			amount_cents = t.amount_cents + EXCLUDED.amount_cents,
			newest = greatest(t.newest, EXCLUDED.newest);
	ELSE
		-- an older snapshot would not show all rows to delete
		IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
			RAISE EXCEPTION 'cannot truncate current_orders in a transaction with isolation level %',
					current_setting('transaction_isolation')
				USING ERRCODE = 'feature_not_supported',
					  HINT = 'Use a transaction with isolation level READ COMMITTED.';
		END IF;
		DELETE FROM @extschema@.spine_order_totals;
		DELETE FROM @extschema@.spine_order_sums;
		DELETE FROM @extschema@.spine_order_counts;
		DELETE FROM @extschema@.spine_order_changes;
	END IF;

	IF TG_OP IN ('INSERT', 'UPDATE') THEN
		INSERT INTO @extschema@.spine_order_changes (newest, tenants, order_ids, updated_at, since)
		SELECT max(n.updated_at), array_agg(n.tenant), array_agg(n.order_id), array_agg(n.updated_at),
			   CASE WHEN count(*) = 1000 THEN min(n.updated_at) END
		FROM (SELECT tenant, order_id, updated_at
			  FROM new_orders
			  ORDER BY updated_at DESC
			  LIMIT 1000) n
		HAVING count(*) > 0
		RETURNING id INTO change;

		-- Rows that another session removes are left to it, if that is not an error.
		IF change % 256 = 0
			AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
			DELETE FROM @extschema@.spine_order_changes
			WHERE ctid = ANY (ARRAY(
				SELECT c.ctid
				FROM @extschema@.spine_order_changes c
				WHERE (c.newest, c.id) < (
					SELECT k.newest, k.id
					FROM (SELECT newest, id,
								 sum(cardinality(order_ids)) OVER (ORDER BY newest DESC, id DESC) AS orders
						  FROM @extschema@.spine_order_changes) k
					WHERE k.orders >= 10000
					ORDER BY k.newest DESC, k.id DESC
					LIMIT 1)
				FOR UPDATE SKIP LOCKED));
		END IF;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_count_orders() IS 'trigger function of current_orders: keeps spine_order_totals up to date';
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
COMMENT ON FUNCTION @extschema@.spine_recount_orders() IS
'count the totals again, after current_orders was changed with its triggers disabled';
REVOKE ALL ON FUNCTION @extschema@.spine_recount_orders() FROM PUBLIC;
