/*
 * One limit that drain is compared with: the same rows, applied by two statements that are
 * written by hand.  The rows are already parsed, reduced and sorted by key, in arrays inside
 * the server.  They go to the same tables, with their triggers and indexes, in batches of
 * 50,000 events, each with a commit of its own.  The batches stay so, whatever spine's are,
 * so that figures of different versions of spine can be compared.
 *
 * bench_prepare takes the rows from bench_rows (copy.sql).  bench_apply applies the batches of
 * one session.
 */

-- a batch of events, and the one row per key that it leaves for current_orders
CREATE TYPE bench_events AS (
	tenant text[], event_id uuid[], event_type text[], order_id text[], amount_cents bigint[],
	event_time timestamptz[], kafka_partition integer[], kafka_offset bigint[]);
CREATE TYPE bench_orders AS (
	tenant text[], order_id text[], status text[], amount_cents bigint[], updated_at timestamptz[]);

CREATE TABLE bench_batches (
	session		integer,
	batch		integer,
	rows		integer,
	events		bench_events,
	orders		bench_orders
);
CREATE TABLE bench_times (
	session		integer,
	started		timestamptz,
	ended		timestamptz,
	cpu_ticks	bigint
);

CREATE PROCEDURE bench_prepare(sessions integer, batch_size integer DEFAULT 50000)
LANGUAGE plpgsql
AS $$
BEGIN
	CREATE TEMP TABLE placed AS
	SELECT kafka_partition % sessions AS session,
		   (row_number() OVER (PARTITION BY kafka_partition % sessions ORDER BY n) - 1) / batch_size AS batch,
		   n, tenant, event_id, event_type, order_id, amount_cents, event_time, kafka_partition, kafka_offset
	FROM bench_rows;

	INSERT INTO bench_batches
	SELECT e.session, e.batch, e.rows, e.events, o.orders
	FROM (
		SELECT session, batch, count(*) AS rows,
			   ROW(array_agg(tenant ORDER BY n), array_agg(event_id ORDER BY n),
				   array_agg(event_type ORDER BY n), array_agg(order_id ORDER BY n),
				   array_agg(amount_cents ORDER BY n), array_agg(event_time ORDER BY n),
				   array_agg(kafka_partition ORDER BY n), array_agg(kafka_offset ORDER BY n)
			   )::bench_events AS events
		FROM placed
		GROUP BY 1, 2
	) e
	JOIN (
		SELECT session, batch,
			   ROW(array_agg(tenant ORDER BY tenant, order_id), array_agg(order_id ORDER BY tenant, order_id),
				   array_agg(event_type ORDER BY tenant, order_id), array_agg(amount_cents ORDER BY tenant, order_id),
				   array_agg(event_time ORDER BY tenant, order_id))::bench_orders AS orders
		FROM (
			SELECT DISTINCT ON (session, batch, tenant, order_id) *
			FROM placed
			ORDER BY session, batch, tenant, order_id, event_time DESC, n DESC
		) reduced
		GROUP BY 1, 2
	) o USING (session, batch);
END
$$;

-- The CPU time of this process, in clock ticks.
CREATE FUNCTION bench_cpu_ticks()
RETURNS bigint
LANGUAGE sql VOLATILE
AS $$
	SELECT f[12]::bigint + f[13]::bigint
	FROM (SELECT string_to_array(regexp_replace(pg_read_file('/proc/self/stat', 0, 4096), '^.*\) ', ''), ' ')) s (f)
$$;

-- Loads the batches into memory, then waits until advisory lock 1 is released.
CREATE PROCEDURE bench_apply(of_session integer)
LANGUAGE plpgsql
AS $$
DECLARE
	all_events	bench_events[];
	all_orders	bench_orders[];
	e			bench_events;
	o			bench_orders;
	start_ticks	bigint;
	start_time	timestamptz;
BEGIN
	SELECT array_agg(b.events ORDER BY b.batch), array_agg(b.orders ORDER BY b.batch)
	INTO all_events, all_orders
	FROM bench_batches b
	WHERE b.session = of_session;
	COMMIT;

	PERFORM pg_advisory_lock_shared(1);
	COMMIT;
	start_ticks := bench_cpu_ticks();
	start_time := clock_timestamp();
	FOR i IN 1 .. cardinality(all_events) LOOP
		e := all_events[i];
		o := all_orders[i];

		INSERT INTO events (tenant, event_id, event_type, order_id, amount_cents, event_time,
							kafka_partition, kafka_offset)
		SELECT *
		FROM unnest(e.tenant, e.event_id, e.event_type, e.order_id, e.amount_cents, e.event_time,
					e.kafka_partition, e.kafka_offset);

		INSERT INTO current_orders AS t (tenant, order_id, status, amount_cents, updated_at)
		SELECT *
		FROM unnest(o.tenant, o.order_id, o.status, o.amount_cents, o.updated_at)
		ON CONFLICT (tenant, order_id) DO UPDATE
		SET status = EXCLUDED.status, amount_cents = EXCLUDED.amount_cents, updated_at = EXCLUDED.updated_at
		WHERE EXCLUDED.updated_at >= t.updated_at;

		COMMIT;
	END LOOP;
	INSERT INTO bench_times
	VALUES (of_session, start_time, clock_timestamp(), bench_cpu_ticks() - start_ticks);
END
$$;
