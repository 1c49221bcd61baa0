# The triggers of current_orders write the tables of the totals without statements.  What a
# statement would respect is respected: columns, checks and indexes that somebody has added,
# the snapshot of the transaction, a row that another transaction writes, a publication.
#
# Broken when an added column does not get its default or is not computed, a check is not
# looked at or an index misses a row; when a total has orders that the snapshot does not
# show, or the orders of a prepared transaction are lost; when a row is written by a
# key that is not the table's.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = spine_node('main', conf => 'max_prepared_transactions = 5');

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

query(<<'SQL');
CREATE FUNCTION failure(statements text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statements;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SQL

# Asks how the statements fail.
sub how_fails
{
	return "SELECT failure(\$q\$$_[0]\$q\$)";
}

sub failure
{
	return query(how_fails($_[0]));
}

# An INSERT of so many orders of a tenant.
my $last_order = 0;

sub orders
{
	my ($tenant, $n) = @_;
	my $values = join ', ', map { sprintf "('%s', '%d', 'order_paid', 5, 'USD', '2026-01-01Z')", $tenant, ++$last_order } 1 .. $n;

	return "INSERT INTO current_orders VALUES $values;";
}

# Each table agrees with the orders.
sub totals_agree
{
	is(query(<<'SQL'), '', "totals: $_[0]");
WITH kept AS (
	SELECT 'totals' AS what, tenant, sum(orders) AS orders, sum(amount_cents) AS amount_cents FROM spine_order_totals GROUP BY 2
	UNION ALL SELECT 'counts', tenant, sum(orders), 5 * sum(orders) FROM spine_order_counts GROUP BY 2
	UNION ALL SELECT 'sums', '', sum(orders), sum(amount_cents) FROM spine_order_sums),
right_ones AS (
	SELECT t, tenant, count(*), sum(amount_cents) FROM current_orders, unnest('{totals,counts}'::text[]) t GROUP BY 1, 2
	UNION ALL SELECT 'sums', '', count(*), sum(amount_cents) FROM current_orders)
(TABLE kept EXCEPT TABLE right_ones) UNION ALL (TABLE right_ones EXCEPT TABLE kept)
SQL
	return;
}

query(orders('first', 3));
totals_agree('one tenant');

#
# Another transaction writes the session's rows: it is prepared, and has the session's number.
#
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN;' . orders('prepared', 2) . q{PREPARE TRANSACTION 'p'});
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM current_orders');
query(q{COMMIT PREPARED 'p'});
like($session->query_safe(how_fails(orders('prepared', 1))), qr/^40001: could not serialize access/, 'a row that the snapshot does not show is not written');
$session->query_safe('COMMIT');
totals_agree('after a serialization failure');

$session->query_safe('BEGIN;' . orders('prepared', 2) . orders('waits', 1) . q{PREPARE TRANSACTION 'p'});
$session->query_until(qr/asks/, "\\echo asks\n" . orders('waits', 1) . "\n");
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO current_orders%'}),
	'a statement waits for who writes the same rows');
query(q{COMMIT PREPARED 'p'});
$session->query_safe('SELECT 1');
totals_agree('after both');
is(query(q{SELECT sum(orders) FROM spine_order_totals WHERE tenant = 'waits'}), '2', 'the orders of both are counted');
$session->quit;

#
# Somebody has added columns, checks and indexes
#
query(<<'SQL');
ALTER TABLE spine_order_totals ADD gone integer, ADD note text NOT NULL DEFAULT 'new',
	ADD twice bigint GENERATED ALWAYS AS (orders * 2) STORED;
ALTER TABLE spine_order_totals DROP gone;
ALTER TABLE spine_order_counts ADD CONSTRAINT few CHECK (orders < 10);
CREATE UNIQUE INDEX by_expression ON spine_order_totals ((tenant || '/' || orders), currency, status, session);
CREATE INDEX partial ON spine_order_totals (orders) WHERE orders > 3;
ALTER TABLE spine_order_changes ADD at timestamptz NOT NULL DEFAULT now();
SQL
query(orders('added', 2) . orders('added', 2) . q{UPDATE spine_order_totals SET note = 'kept' WHERE tenant = 'added';} . orders('added', 1));
totals_agree('with more columns, checks and indexes');
is(query(q{SELECT orders, note, twice FROM spine_order_totals WHERE tenant = 'added'}), '5|kept|10', 'a default, a value that is kept, and a generated column');
is(query(q{SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT tenant FROM spine_order_totals WHERE tenant || '/' || orders = 'added/5';
	SELECT tenant FROM spine_order_totals WHERE orders > 4}), "added\nadded", 'the added indexes have the row');
like(failure(orders('added', 1) . orders('added', 10)), qr/^23514: new row for relation "spine_order_counts" violates check constraint "few"/, 'a check is looked at');
totals_agree('after a check has failed');

#
# A publication needs to know which rows are updated
#
query(<<'SQL');
CREATE PUBLICATION all_totals FOR TABLE spine_order_totals;
ALTER TABLE spine_order_totals REPLICA IDENTITY NOTHING;
SQL
like(failure(orders('first', 1)), qr/^55000: cannot update table "spine_order_totals" because it does not have a replica identity and publishes updates/, 'no update without a replica identity');
query('ALTER TABLE spine_order_totals REPLICA IDENTITY FULL');
query(orders('first', 1));
totals_agree('with a publication');
query('DROP PUBLICATION all_totals; ALTER TABLE spine_order_totals REPLICA IDENTITY DEFAULT');

#
# A table that was changed so that its rows cannot be found is refused, and nothing is counted
#
my $changed = qr/^55000: the columns of table public.spine_order_\w+, or its primary key, are not those that spine has made/;
foreach my $change ('spine_order_totals DROP CONSTRAINT spine_order_totals_pkey',
	'spine_order_totals DROP CONSTRAINT spine_order_totals_pkey, ADD PRIMARY KEY (tenant, session, currency)',
	'spine_order_counts DROP CONSTRAINT spine_order_counts_pkey, ADD PRIMARY KEY (tenant, session) DEFERRABLE',
	'spine_order_sums RENAME status TO state', 'spine_order_sums ALTER session TYPE bigint',
	'spine_order_changes DROP COLUMN since')
{
	like(failure("ALTER TABLE $change; " . orders('first', 1)), $changed, $change);
}
totals_agree('at the end');

done_testing();
