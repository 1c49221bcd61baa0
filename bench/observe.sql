/*
 * When does an event become visible, whoever writes it?  A session looks about once a
 * millisecond for the newest event of each partition, by an index that all consumers have to
 * fill, spine too. Each consumer writes the events of a partition in order, so all events
 * up to the newest one are visible.
 */
CREATE INDEX bench_place ON events (kafka_partition, kafka_offset);
CREATE TABLE bench_seen (seen_at timestamptz, kafka_partition integer, kafka_offset bigint);

CREATE PROCEDURE bench_observe(partitions integer, seconds float8)
LANGUAGE plpgsql
AS $$
DECLARE
	until		timestamptz := clock_timestamp() + seconds * interval '1 s';
	newest		bigint;
	before		bigint[] := array_fill(-1::bigint, ARRAY[partitions], ARRAY[0]);
	times		timestamptz[];
	parts		integer[];
	offsets		bigint[];
BEGIN
	WHILE clock_timestamp() < until LOOP
		FOR p IN 0 .. partitions - 1 LOOP
			SELECT max(kafka_offset) INTO newest FROM events WHERE kafka_partition = p;
			IF newest > before[p] THEN
				times := times || clock_timestamp();
				parts := parts || p;
				offsets := offsets || newest;
				before[p] := newest;
			END IF;
		END LOOP;
		COMMIT;		-- a snapshot that is kept would keep dead rows, too
		PERFORM pg_sleep(0.001);
	END LOOP;
	INSERT INTO bench_seen SELECT * FROM unnest(times, parts, offsets);
END
$$;
