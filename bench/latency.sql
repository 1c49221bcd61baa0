/*
 * When does an event become visible?  Neither applied_at (the transaction's start)
 * nor the commit timestamp (taken before the commit is flushed) says so.  So a
 * session looks at the positions about once a millisecond, and records when it first
 * saw each of them. The positions move in the transaction that applies the events, so
 * the times are late by the session's own pause at most, and never early.
 */
CREATE TABLE bench_seen (
	seen_at		timestamptz,
	positions	bigint[]		-- of partitions 0, 1, ...
);
CREATE TABLE bench_commits (n integer, seconds float8);

CREATE PROCEDURE bench_observe(of_topic text, seconds float8)
LANGUAGE plpgsql
AS $$
DECLARE
	until		timestamptz := clock_timestamp() + seconds * interval '1 s';
	before		bigint[];
	now_at		bigint[];
	times		timestamptz[];
	found		text[];
BEGIN
	WHILE clock_timestamp() < until LOOP
		SELECT array_agg(next_offset ORDER BY partition)
		INTO now_at
		FROM spine_offsets
		WHERE pipeline = 'orders' AND topic = of_topic;
		IF now_at IS DISTINCT FROM before THEN
			times := times || clock_timestamp();
			found := found || now_at::text;
			before := now_at;
		END IF;
		COMMIT;		-- a snapshot that is kept would keep dead rows, too
		PERFORM pg_sleep(0.001);
	END LOOP;
	INSERT INTO bench_seen SELECT t, p::bigint[] FROM unnest(times, found) u (t, p);
END
$$;

-- Measures how long the commit of one row takes.
CREATE PROCEDURE bench_commit(times integer)
LANGUAGE plpgsql
AS $$
DECLARE
	start	timestamptz;
	took	float8[];
BEGIN
	FOR i IN 1 .. times LOOP
		start := clock_timestamp();
		INSERT INTO bench_commits VALUES (i, 0);
		COMMIT;
		took := took || extract(epoch FROM clock_timestamp() - start)::float8;
	END LOOP;
	TRUNCATE bench_commits;
	INSERT INTO bench_commits SELECT 0, unnest(took);
END
$$;
