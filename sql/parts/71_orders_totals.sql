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

-- Runs as the extension's owner: a role that may change orders need not have the right
-- to change the totals.
CREATE FUNCTION @extschema@.spine_count_orders()
RETURNS trigger
AS 'MODULE_PATHNAME', 'spine_count_orders'
LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
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
