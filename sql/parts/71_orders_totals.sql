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
		-- an older snapshot would not show all rows to delete
		IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
			RAISE EXCEPTION 'cannot truncate current_orders in a transaction with isolation level %',
					current_setting('transaction_isolation')
				USING ERRCODE = 'feature_not_supported',
					  HINT = 'Use a transaction with isolation level READ COMMITTED.';
		END IF;
		DELETE FROM @extschema@.spine_order_totals;
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
	LOCK TABLE @extschema@.current_orders IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM @extschema@.spine_order_totals;
	INSERT INTO @extschema@.spine_order_totals
	SELECT tenant, currency, status, 0, count(*), sum(amount_cents), max(updated_at)
	FROM @extschema@.current_orders
	GROUP BY 1, 2, 3;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_recount_orders() IS
'count the totals again, after current_orders was changed with its triggers disabled';
REVOKE ALL ON FUNCTION @extschema@.spine_recount_orders() FROM PUBLIC;
