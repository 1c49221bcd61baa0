/*
 * spine 0.1.0 to 0.2.0: what ALTER EXTENSION UPDATE changes.
 *
 * A database that is updated has what CREATE EXTENSION makes of
 * spine--0.2.0.sql; test/t/025_upgrade.pl compares the two.
 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION spine UPDATE" to load this file. \quit

--
-- Totals: a session begins new rows while old snapshots are held
--

CREATE FUNCTION @extschema@.spine_session_adds_up()
RETURNS boolean
AS 'MODULE_PATHNAME', 'spine_session_adds_up'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.spine_session_adds_up() IS
'is it time for the session to add up its totals? part of spine_count_orders';
REVOKE ALL ON FUNCTION @extschema@.spine_session_adds_up() FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.spine_session_number() IS
'a number that no other session has at this time; one has several in turn, the same modulo 262144';
COMMENT ON COLUMN @extschema@.spine_order_totals.session IS 'the number of the server''s session that counts here, see spine_session_number(); numbers are used again';

CREATE OR REPLACE FUNCTION @extschema@.spine_count_orders()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
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
