# Looking before leaping: spine_peek shows what is on a topic and changes nothing there,
# nor in the database; spine_infer writes a table and a pipeline for it that run as they are.
#
# Broken when a look creates a topic, moves a position, misses a record, hangs on a gap or
# on a broker that is away, or fails because one record is no JSON; and when what is
# inferred does not take the records that it was inferred from, or runs what a record says.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker('plain', 3);
my $node = spine_node('main', conf => "spine.brokers = '$broker->{address}'\n");
my $address = $broker->{address};

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Checks that a statement fails with an error of this SQLSTATE that matches.
sub refused
{
	my ($what, $sql, $sqlstate, $error) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  $sqlstate: .*$error/, $what);
	return;
}

#
# spine_peek
#
send_lines($address, 'plain', 0, join '', map { "k$_\t{\"n\": $_}\n" } 0 .. 29);
send_lines($address, 'plain', 1, join '', map { "$_\t{\"n\": $_}\n" } 100 .. 104);
my $rows = q{SELECT partition, "offset", key, value ->> 'n', error FROM spine_peek};

is(query("$rows('plain', 3, 'earliest') ORDER BY 1, 2"), qq{0|0|"k0"|0|\n0|1|"k1"|1|\n0|2|"k2"|2|}, 'the first records');
is(query("$rows('plain', 2) ORDER BY 1, 2"), "1|3|103|103|\n1|4|104|104|", 'the last records, by their time');
is(query("$rows('plain', 3, '28') ORDER BY 1, 2"), qq{0|28|"k28"|28|\n0|29|"k29"|29|}, 'from an offset on');
is(query(qq{$rows('plain', 2, '{"1": 1}') ORDER BY 1, 2}), "1|1|101|101|\n1|2|102|102|", 'from an offset of one partition on');
is(query("SELECT count(*), count(DISTINCT (partition, \"offset\")) FROM spine_peek('plain', 10000, 'earliest')"), '35|35', 'all records');
is(query("SELECT count(*) FROM spine_peek('plain', 10000)"), '35', 'no more than there are, from the end');
is(query(q{SELECT bool_and("timestamp" BETWEEN now() - interval '10 min' AND now() + interval '1 min') FROM spine_peek('plain')}), 't', 'timestamps');
is(query('SELECT count(*) FROM spine_peek(\'plain\', 10, \'{"2": 0}\')'), '0', 'an empty partition');

send_values($address, 'odd', 0, [ "\xff", 'no json', '"\u0000"', '7', 'null', '{"deep": [1, {"a": 12345678901234567890.10}]}', '[' x 20000 ],
	'trace=abc', 'n=5', 'trace=def');
send_tombstone($address, 'odd', 0, 'gone');
is(query(q{SELECT "offset", key, value, headers, error FROM spine_peek('odd')}), <<'ROWS' =~ s/\n$//r, 'what is not JSON says so, and the rest is shown');
0|"k"||{"n": "5", "trace": "def"}|value: not UTF-8
1|"k"||{"n": "5", "trace": "def"}|value: invalid input syntax for type json DETAIL: Token "no" is invalid.
2|"k"||{"n": "5", "trace": "def"}|value: unsupported Unicode escape sequence DETAIL: \u0000 cannot be converted to text.
3|"k"|7|{"n": "5", "trace": "def"}|
4|"k"|null|{"n": "5", "trace": "def"}|
5|"k"|{"deep": [1, {"a": 12345678901234567890.10}]}|{"n": "5", "trace": "def"}|
6|"k"||{"n": "5", "trace": "def"}|value: jsonb of it would take more memory to make than spine.max_record_memory allows
7|"gone"||{}|
ROWS

query('CREATE ROLE nobody');
refused('nobody may look by default', "SET ROLE nobody; SELECT spine_peek('plain')", 42501, 'permission denied for function spine_peek');
query('GRANT EXECUTE ON FUNCTION spine_peek, spine_infer_columns, spine_infer TO nobody');
like(query("SET ROLE nobody; SELECT spine_infer('plain')"), qr/CREATE TABLE plain/, 'who may look may infer');
refused('too many', "SELECT spine_peek('plain', 10001)", 22023, 'between 1 and 10000');
refused('none', "SELECT spine_peek('plain', 0)", 22023, 'between 1 and 10000');
refused('no such place', "SELECT spine_peek('plain', 1, 'somewhere')", 22007, 'somewhere');
refused('no such partition', q{SELECT spine_peek('plain', 1, '{"3": 1}')}, 22023, 'partition that the topic does not have');
refused('no such server', q{SELECT spine_peek('plain', server => 'moon')}, 42704, 'server "moon" does not exist');

tell_broker($broker, 'hide plain');
refused('a topic that does not exist', "SELECT spine_peek('plain')", 42704, 'topic "plain" does not exist');
tell_broker($broker, 'show plain');
is(query("SELECT count(*) FROM spine_peek('plain')"), '10', 'after errors');

# the session has no thread and no descriptor left
is(query(<<'SQL'), "0", 'a look leaves nothing behind');
CREATE FUNCTION pg_temp.threads() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/task')$$;
CREATE FUNCTION pg_temp.files() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/fd')$$;
SELECT FROM spine_peek('plain', 1);
SELECT pg_temp.threads() + pg_temp.files() AS before \gset
SELECT FROM spine_peek('plain', 1);
DO $$ BEGIN PERFORM spine_peek('plain', 1, '{"7": 0}'); EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$;
SELECT pg_temp.threads() + pg_temp.files() - :before;
SQL

#
# spine_infer
#

# Runs what spine_infer says, and waits until the records are there.
sub infer_and_run
{
	my ($topic, $more) = @_;
	my $sql = query("SELECT spine_infer('$topic'" . ($more // '') . ')');

	note $sql;
	query("BEGIN;\n$sql\nCOMMIT;");
	ok(wait_applied($node), "$topic: applied");
	is(query('SELECT string_agg(reason, E\'\\n\') FROM spine_dead_letters'), '', "$topic: no dead letter");
	return $sql;
}

# The columns of a table, one a line.
sub columns_of
{
	my ($table) = @_;

	return query("SELECT concat(quote_ident(attname), ' ', format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' END)
		FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 ORDER BY attnum");
}

send_lines($address, 'shop.orders', 0, join '', map { <<"LINE" } 1 .. 5);
@{[ 10 * $_ ]}\t{"id": @{[ 10 * $_ ]}, "total": @{[ $_ / 2 ]}, "paid": true, "placed_at": "2026-01-0${_}T10:00:00.5+02:00", "day": "2026-01-0$_", "ref": "0000000$_-0000-4000-8000-000000000000", "customer": {"id": $_, "name": "c$_"}, "lines": [{"sku": "a", "n": $_}], "sent_ms": 176722560000$_, "when": "order", "weird \\"key\\"": $_, "order": {"a": {"b": 1}}, "big": 1234567890123456789$_}
LINE
send_lines($address, 'shop.orders', 1, qq{60\t{"id": 60, "total": 7, "paid": null, "customer": {"id": 6, "name": "c6"}, "when": 5}\n});
infer_and_run('shop.orders');
is(columns_of('shop_orders'), join("\n", 'id bigint NOT NULL', 'big numeric', 'customer_id bigint', 'customer_name text',
		'day date', 'lines jsonb', '"order" jsonb', 'paid boolean', 'placed_at timestamp with time zone', 'ref uuid',
		'sent_ms bigint', 'total numeric', '"weird ""key""" bigint', '"when" text'), 'the types, and a small object taken apart');
is(query('SELECT id, total, paid, placed_at, day, ref, customer_id, customer_name, lines, sent_ms, "when", "weird ""key""", "order", big FROM shop_orders WHERE id IN (20, 60) ORDER BY 1'),
	'20|1|t|2026-01-02 08:00:00.5+00|2026-01-02|00000002-0000-4000-8000-000000000000|2|c2|[{"n": 2, "sku": "a"}]|1767225600002|order|2|{"a": {"b": 1}}|12345678901234567892'
	  . "\n60|7|||||6|c6|||5|||", 'the rows');
is(query(q{SELECT count(*) FROM shop_orders}), '6', 'all rows');

# the key of the log is the tenant: it does not tell events apart, but another field does
send_lines($address, 'events-of-tenants', undef, join '', map { qq{acme\t{"tenant": "acme", "event_id": "e$_", "kafka_offset": $_}\n} } 1 .. 5);
like(infer_and_run('events-of-tenants', ", table_name => 'public.\"Events\"'"), qr/^-- event_id differs in all .* tenant, the record's key, is the same/m, 'a unique id before a key that repeats');
is(query('SELECT count(*) FROM "Events"'), '5', 'all events');

# a key of two members
send_lines($address, 'pairs', undef, join '', map { my $n = $_; map { qq{{"a": $n, "b": "$_"}\t{"a": $n, "b": "$_", "c": 1.5}\n} } 'x', 'y' } 1 .. 3);
infer_and_run('pairs');
is(query(q{SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'pairs'::regclass}), 'PRIMARY KEY (a, b)', 'a key of two columns');
is(query('SELECT count(*) FROM pairs'), '6', 'a row for each pair');

# nothing tells the records apart
send_lines($address, 'readings', 0, join '', map { qq{k\t{"t": 20.5, "kafka_offset": "mine"}\n} } 1 .. 4);
infer_and_run('readings');
is(query('SELECT t, kafka_offset, kafka_partition, kafka_offset_2, record_key FROM readings ORDER BY 4'), join("\n", map { "20.5|mine|0|$_|k" } 0 .. 3), 'the place in the log is the key');
query(q{SELECT spine_seek('readings', NULL, 'earliest')});
ok(wait_applied($node), 'read again');
is(query('SELECT count(*) FROM readings'), '4', 'nothing is doubled');

# a key that no field repeats
send_lines($address, 'parcels', undef, join '', map { qq{p$_\t{"state": "sent"}\n} } 1 .. 3);
infer_and_run('parcels');
is(query('SELECT state, record_key FROM parcels ORDER BY 2'), "sent|p1\nsent|p2\nsent|p3", 'the key of the record has a column');
is(query(q{SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'parcels'::regclass}), 'PRIMARY KEY (record_key)', 'and is the key');

# a field tells the records apart, and nothing is their key; an error of a key is not one of a value
send_values($address, 'clicks', 0, [ map { qq({"id": $_, "page": "a"}) } 1 .. 3 ]);
infer_and_run('clicks');
is(query(q{SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'clicks'::regclass}), 'PRIMARY KEY (id)', 'a unique id without a key');
send_lines($address, 'mixed', 0, qq{\xff\t{"id": 1}\nk\tnot JSON\n});
my ($status, $out, $notice) = $node->psql('postgres', q{SELECT spine_infer('mixed')});
like($notice, qr/1 of 2 records.*DETAIL:  value: /s, 'a record that is no JSON, and why');

# a record that wants its text to be run
my $evil = q{x\n; DROP TABLE readings; -- ' \" $$ \\\\ };
my $long = 'l' x 70;
send_values($address, 'evil', 0, [ qq({"$evil": "a", "$evil": {"y\\n\\rDROP TABLE readings": 1}, "ctid": 1, "": 2, "\$offset": 3, "*": 4, "${long}1": 1, "${long}2": 2, "a_b": 5, "a": {"b": 6}, "select": 7, "Upper": 8}) ]);
unlike(infer_and_run('evil', ', 2'), qr/^ *; DROP/m, 'a record cannot begin a line');
is(query('SELECT count(*) FROM readings'), '4', 'nothing of a record is run');
is(query('SELECT ctid_2, "column", "$offset", "*_2", a_b, a_b_2, "select", "Upper" FROM evil'), '1|2|3|4|6|5|7|8', 'every field has a column of its own');
is(query(sprintf 'SELECT %s, %s FROM evil', 'l' x 63, 'l' x 61 . '_2'), '1|2', 'long names');

refused('an empty topic', q{SELECT spine_infer('nothing', 10)}, 'P0002', 'topic "nothing" has no records');
send_values($address, 'arrays', 0, [ '[1]', '[2]' ]);
refused('no objects', q{SELECT spine_infer('arrays')}, 22000, 'none of 2 records');
is(query(q{SELECT * FROM spine_infer_columns('pairs') ORDER BY 1}), <<'ROWS' =~ s/\n$//r, 'spine_infer_columns');
a|bigint|a|6|6|0|3|member|{1,2,3}|
b|text|b|6|6|0|2|member|{x,y}|
c|numeric|c|6|6|0|1||{1.5}|
ROWS

#
# spine_preview
#
query(<<'SQL');
CREATE ROLE app;
CREATE TABLE stock (id int PRIMARY KEY, n int, version bigint, name text CHECK (name <> 'bad'), who text);
ALTER TABLE stock OWNER TO app;
CREATE FUNCTION note_who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.who := current_user;
	PERFORM set_config('intervalstyle', 'iso_8601', false);
	RETURN NEW;
END $$;
INSERT INTO stock VALUES (1, 10, 5, 'a'), (2, 20, 5, 'b');
CREATE TRIGGER note_who BEFORE INSERT ON stock FOR EACH ROW EXECUTE FUNCTION note_who();
CREATE TABLE moves (n int, at_offset bigint UNIQUE);
CREATE TABLE items (stock_id int REFERENCES stock, n int);
INSERT INTO moves VALUES (0, 2);
ALTER TABLE moves OWNER TO app; ALTER TABLE items OWNER TO app;
SQL
my $before = query('SELECT stock FROM stock ORDER BY id');
send_values($address, 'stock', 0, [
		'{"id": 1, "n": 11, "version": 6, "name": "c"}',
		'{"id": 2, "n": 21, "version": 4, "name": "d"}',
		'{"id": 3, "n": 30, "version": 1, "name": "e"}',
		'{"id": 3, "n": 30, "version": 1, "name": "e"}',
		'{"id": 4, "n": "x", "version": 1, "name": "f"}',
		'no json',
		'{"id": 5, "n": 1, "version": 1, "name": "bad"}',
		'{"id": 1, "n": 12, "version": 7, "name": "g"}' ]);

send_values($address, 'stock2', 0, [ '{"id": 9, "version": 1}' ]);

# Rehearses a pipeline that nobody has yet.
my $make = q{SELECT spine_create_pipeline('stock', 'stock', 'stock', 'upsert', version => 'version'}
  . q{, columns => '{"id": null, "n": null, "version": null, "name": null}', owner => 'app');};
is(query(<<SQL), <<'ROWS' =~ s/\n$//r, 'what becomes of each record');
BEGIN;
$make
SELECT "offset", sink, action, new_row, old_row, sqlstate, reason FROM spine_preview('stock');
SELECT current_user = session_user, current_setting('intervalstyle'), current_setting('lock_timeout'), current_setting('search_path') <> '';
ROLLBACK;
SQL

0|stock|update|{"n": 11, "id": 1, "who": null, "name": "c", "version": 6}|{"n": 10, "id": 1, "who": null, "name": "a", "version": 5}||
1|stock|stale||{"n": 20, "id": 2, "who": null, "name": "b", "version": 5}||
2|stock|insert|{"n": 30, "id": 3, "who": "app", "name": "e", "version": 1}|||
3|stock|unchanged|{"n": 30, "id": 3, "who": "app", "name": "e", "version": 1}|{"n": 30, "id": 3, "who": "app", "name": "e", "version": 1}||
4|stock|dead letter|||22P02|invalid input syntax for type integer: "x"
5||dead letter|||22P02|not a JSON object at byte 1
6|stock|dead letter|||23514|new row for relation "stock" violates check constraint "stock_name_check" DETAIL: Failing row contains (5, 1, 1, bad, app).
7|stock|update|{"n": 12, "id": 1, "who": null, "name": "g", "version": 7}|{"n": 11, "id": 1, "who": null, "name": "c", "version": 6}||
t|postgres|0|t
ROWS
is(query('SELECT stock FROM stock ORDER BY id'), $before, 'nothing is applied');

# a parent and a child; the record is not applied to one of them alone
is(query(<<SQL), <<'ROWS' =~ s/\n$//r, 'several sinks, and one altered in the same transaction');
BEGIN;
$make
SELECT spine_add_sink('stock', 'items', columns => '{"stock_id": "id", "n": null}');
SELECT "offset", sink, action, new_row, reason FROM spine_preview('stock', 3);
SELECT spine_alter_sink('stock', 'items', '{"columns": {"stock_id": "n"}}');
SELECT "offset", sink, action, new_row, reason FROM spine_preview('stock', 1);
SELECT spine_drop_sink('stock', 'items'), spine_drop_sink('stock', 'stock');
SELECT spine_add_sink('stock', 'moves', key => '{at_offset}', columns => '{"at_offset": "\$offset", "n": null}');
SELECT "offset", action, new_row, old_row FROM spine_preview('stock', 2, '2');
ROLLBACK;
SQL


0|stock|update|{"n": 11, "id": 1, "who": null, "name": "c", "version": 6}|
0|items|insert|{"n": 11, "stock_id": 1}|
1|stock|stale||
1|items|insert|{"n": 21, "stock_id": 2}|
2|stock|insert|{"n": 30, "id": 3, "who": "app", "name": "e", "version": 1}|
2|items|insert|{"n": 30, "stock_id": 3}|

0|items|dead letter||insert or update on table "items" violates foreign key constraint "items_stock_id_fkey" DETAIL: Key (stock_id)=(11) is not present in table "stock".
|

2|unchanged||{"n": 0, "at_offset": 2}
3|insert|{"n": 30, "at_offset": 3}|
ROWS

is(query(<<SQL), "\n0|filtered||\n1|stale||{\"n\": 20, \"id\": 2, \"who\": null, \"name\": \"b\", \"version\": 5}", 'a filter');
BEGIN;
$make
SELECT FROM spine_alter_sink('stock', 'stock', '{"filter": "(value->>''id'')::int > 1"}');
SELECT "offset", action, new_row, old_row FROM spine_preview('stock', 2);
ROLLBACK;
SQL

# from the position of a pipeline
query("$make SELECT spine_pause('stock')");
refused('nobody else', "SET ROLE nobody; SELECT spine_preview('stock')", 42501, 'must be a member of role "app" to preview pipeline "stock"');
refused('no such pipeline', "SELECT spine_preview('none')", 42704, 'pipeline "none" does not exist');
refused('read only', "BEGIN READ ONLY; SELECT spine_preview('stock')", 25006, 'read-only transaction');
is(query("SET ROLE app; SELECT count(*) FROM spine_preview('stock')"), '8', 'the owner may');
is(query('SELECT stock FROM stock ORDER BY id'), $before, 'nothing stays, without a transaction either');
query(q{SELECT spine_seek('stock', 0, 7)});
is(query(q{SELECT "offset", action FROM spine_preview('stock')}), '7|update', 'from the position');
is(query(q{SELECT count(*) FROM spine_preview('stock', 3, 'earliest'); SELECT min("offset") FROM spine_preview('stock', 3, 'latest')}), "3\n5", 'from elsewhere');
is(query(<<'SQL'), "7|update", 'operators of the caller are not taken');
CREATE SCHEMA own AUTHORIZATION app;
SET ROLE app;
CREATE FUNCTION own.same(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'run by %', current_user; END $$;
CREATE FUNCTION own.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'run by %', current_user; END $$;
CREATE OPERATOR own.= (FUNCTION = own.same, LEFTARG = name, RIGHTARG = name);
CREATE OPERATOR own.= (FUNCTION = own.same, LEFTARG = text, RIGHTARG = text);
SET search_path = own, pg_catalog;
SELECT "offset", action FROM public.spine_preview('stock');
SQL
query(q{SELECT spine_seek('stock', NULL, 'latest')});
my (undef, $preview, $said) = $node->psql('postgres', q{SELECT * FROM spine_preview('stock')});
is($preview, '', 'nothing to read');
like($said, qr/NOTICE:  there is nothing to read for pipeline "stock"/, 'and that is said');
is(query(q{SELECT next_offset FROM spine_offsets WHERE pipeline = 'stock' AND partition = 0}), '8', 'no position is moved');

is(query(<<SQL), "stock|8\nstock2|1", 'several topics');
BEGIN;
SELECT FROM spine_alter_pipeline('stock', '{"topic": "stock, missing, stock2"}');
SELECT topic, count(*) FROM spine_preview('stock', 100, 'earliest') GROUP BY 1 ORDER BY 1;
ROLLBACK;
SQL

# what the preview must not do for long, or cannot do
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN; SELECT FROM stock WHERE id = 1 FOR UPDATE');
refused('a lock that is held', q{SELECT spine_preview('stock', 10, 'earliest')}, '55P03', 'lock timeout');
$session->quit;
query(q{REVOKE SELECT ON stock FROM app});
refused('rows that the role may not see', q{SELECT spine_preview('stock', 10, 'earliest')}, 42501, 'may not read table public.stock');
query(q{GRANT SELECT ON stock TO app; REVOKE INSERT ON stock FROM app});
is(query(q{SELECT DISTINCT action, sqlstate FROM spine_preview('stock', 2, 'earliest')}), 'failed|42501', 'what would let the pipeline fail');
query('GRANT INSERT ON stock TO app');

# an error in the middle leaves the session as it was
is(query(<<'SQL'), "app|1234ms|public|postgres", 'after an error');
SET ROLE app; SET lock_timeout = 1234; SET search_path = public;
DO $$ BEGIN PERFORM spine_preview('stock', 1, '{"9": 0}'); EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$;
SELECT concat_ws('|', current_user, current_setting('lock_timeout'), current_setting('search_path'), current_setting('intervalstyle'));
SQL

#
# A broker that is away: an error with the reason; and it can be cancelled
#
set_config($node, 'spine.brokers' => '127.0.0.1:1');
refused('a broker that is away', "SELECT spine_peek('plain')", '08006', 'the broker does not answer');
my $start = time;
refused('cancelled', "SET statement_timeout = '500ms'; SELECT spine_peek('plain')", 57014, 'statement timeout');
cmp_ok(time - $start, '<', 4, 'at once');
set_config($node, 'spine.brokers' => $address);

stop_broker($broker);
$node->stop;

#
# The embedded broker creates a topic that is asked for by its name
#
$node = spine_node('embedded');
refused("$_ look at a topic that does not exist", "SELECT spine_peek('nothing')", 42704, 'topic "nothing" does not exist') for 'the first', 'a second';
refused('no time there', "SELECT spine_peek('events', 1, '2026-01-01')", '0A000', 'cannot find records by their time');
query(q{SELECT spine_produce('acme', 20)});
is(query(q{SELECT count(*), bool_and(key = '"acme"' AND value ->> 'tenant' = 'acme') FROM spine_peek('events', 15)}), '15|t', 'its records');
$node->stop;
done_testing();
