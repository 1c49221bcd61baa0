--
-- Totals of current_orders, which is what pg_dump need not keep: the triggers count
-- them again as current_orders is restored
--

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
