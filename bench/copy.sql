/*
 * What copy.c applies: the rows that spine has applied, in their order, in the batches that
 * spine made. A batch is what has one applied_at, which is the start of its transaction. Each
 * batch goes to the session that has the fewest rows so far, as the batches of a worker follow
 * one another.
 */
CREATE TABLE bench_rows AS
SELECT row_number() OVER (ORDER BY applied_at, ctid)::int AS n, dense_rank() OVER (ORDER BY applied_at)::int AS batch, e.*
FROM events e;
CREATE INDEX ON bench_rows (batch, n);
CREATE TABLE bench_copied (session integer, batch integer);

CREATE PROCEDURE bench_share(sessions integer)
LANGUAGE plpgsql
AS $$
DECLARE
	had		bigint[] := array_fill(0::bigint, ARRAY[sessions], ARRAY[0]);
	least	integer;
	b		record;
BEGIN
	FOR b IN SELECT batch, count(*) AS n FROM bench_rows GROUP BY 1 ORDER BY 1 LOOP
		SELECT i - 1 INTO least FROM unnest(had) WITH ORDINALITY u (n, i) ORDER BY n, i LIMIT 1;
		INSERT INTO bench_copied VALUES (least, b.batch);
		had[least] := had[least] + b.n;
	END LOOP;
END
$$;
