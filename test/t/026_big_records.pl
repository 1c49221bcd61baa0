# The memory that a record takes is bounded by its size, not by its shape.  A record of
# 16 MB, which may be a few kB while it is sent, takes at most 256 MB of a worker in
# total, whatever it contains, and whether it is applied or becomes a dead letter.
#
# Broken when something makes a tree of a record or copies it once too often, when the
# cost of jsonb is not counted, or is counted where no jsonb is made, when too many such
# records are taken at once, or when a record that costs too much takes its neighbours
# with it.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

use constant MAX_KB => 256 * 1024;

my $broker = start_broker('documents', 1);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
shared_buffers = '8MB'			# shared buffers count as the worker's memory here
CONF
my $work = PostgreSQL::Test::Utils::tempdir();

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

# JSON of about so many bytes: one piece, repeated.
sub value_of
{
	my ($bytes, $before, $piece, $after) = @_;

	return $before . $piece x ($bytes / length $piece) . $after;
}

# Sends records, compressed.  Each large record gets a Kafka batch of its own.
sub send_records
{
	my ($topic, @records) = @_;
	my @files;

	foreach my $record (@records)
	{
		push @files, "$work/record" . @files;
		open my $handle, '>', $files[-1] or die $!;
		binmode $handle;
		print $handle $record;
		close $handle;
	}
	run_log([ 'kcat', '-b', $broker->{address}, '-q', '-P', '-t', $topic, '-p', 0, '-z', 'zstd',
			'-X', 'message.max.bytes=17000000', @files ])
	  or die 'kcat failed';
	return;
}

# Checks the most memory that each worker has had so far, shared memory included.  The
# kernel keeps this figure, so no peak is missed.
sub peaks_are_small
{
	my ($what) = @_;

	foreach my $pid (worker_pids($node))
	{
		slurp_file("/proc/$pid/status") =~ /^VmHWM:\s*(\d+) kB/m or die;
		cmp_ok($1, '<', MAX_KB, "$what: a worker takes at most 256 MB (" . int($1 / 1024) . ')');
	}
	return;
}

query(<<'SQL');
SELECT spine_pause('orders');
CREATE TABLE documents (id text, as_text text, as_json json, as_jsonb jsonb, CHECK (id <> 'refused'));
CREATE TABLE texts (id text, v text);
CREATE TABLE numbers (n bigint);
CREATE TABLE keys (k jsonb);
CREATE TABLE keyed (k jsonb PRIMARY KEY, version bigint, v jsonb);
SQL
make_pipeline($node, name => 'documents', topic => 'documents', target => 'documents', mode => 'append',
	columns => '{"id": "id", "as_text": "v", "as_json": "v", "as_jsonb": "v"}');
make_pipeline($node, name => 'texts', topic => 'documents', target => 'texts', mode => 'append',
	columns => '{"id": "id", "v": "v"}');
send_records('documents', '{"id":"first"}');
ok(wait_applied($node), 'both pipelines run');
my @pids = worker_pids($node);

# [id, SQLSTATE of the dead letter in pipeline documents, in pipeline texts (empty: it is
# applied), the beginning of the JSON of v, the piece that is repeated up to 16 MB, the
# end, for a string: the text that a piece stands for]
my @shapes = (
	[ 'objects', '54000', '', '[{}', ',{}', ']' ],
	[ 'arrays', '54000', '', '[[]', ',[]', ']' ],
	[ 'deep arrays', '54000', '', '[0', ',' . '[' x 500 . ']' x 500, ']' ],
	[ 'deep objects', '54000', '', '[0', ',' . '{"":' x 500 . '0' . '}' x 500, ']' ],
	[ 'numbers', '54000', '', '[1', ',1', ']' ],
	[ 'long numbers', '54000', '', '[1', ',12345678901234567890', ']' ],
	[ 'empty strings', '54000', '', '[""', ',""', ']' ],
	[ 'nulls', '54000', '', '[null', ',null', ']' ],
	[ 'equal keys', '54000', '', '{"":1', ',"":1', '}' ],
	[ 'objects with a key', '54000', '', '[0', ',{"":1}', ']' ],
	[ 'white space', '', '', '[1', ' ', ']' ],
	[ 'long strings', '', '', '[1', ',"' . 'x' x 1_000_000 . '"', ']' ],
	[ 'one string', '', '', '"', 'x', '"', 'x' ],
	[ 'escapes', '', '', '"', '\n', '"', "\n" ],
	[ 'other escapes', '', '', '"', '\ud83d\ude00', '"', "\xf0\x9f\x98\x80" ],
	[ 'not ASCII', '', '', '"', "\xf0\x9f\x98\x80", '"', "\xf0\x9f\x98\x80" ],
	[ 'digits', '22003', '', '', '1', '' ],
	[ 'too deep', '54000', '54000', '[' x 600, ' ', ']' x 600 ],
	[ 'no end', '22P02', '22P02', '[1', ',1', '' ],
	[ 'invalid at the end', '22P02', '22P02', '[1', ',1', ',]' ],
	[ 'refused', '23514', '', '"', 'x', '"', 'x' ]);

# What became of a record: the given values of its row, or the SQLSTATE of its dead letter.
sub fate
{
	my ($pipeline, $id, $record, $values) = @_;

	return query(<<SQL);
SELECT $values FROM $pipeline WHERE id = '$id'
UNION ALL SELECT sqlstate FROM spine_dead_letters WHERE pipeline = '$pipeline'
	AND md5(value) = '@{[ md5_hex($record) ]}'
SQL
}

foreach my $shape (@shapes)
{
	my ($id, $documents, $texts, $before, $piece, $after, $unescaped) = @$shape;
	my $value = value_of(16_000_000, $before, $piece, $after);
	my $text = defined $unescaped ? value_of(16_000_000 / length($piece) * length($unescaped), '', $unescaped, '') : $value;
	my $record = qq({"id":"$id","v":$value});

	send_records('documents', '{"id":"before"}', $record, '{"id":"after"}');
	ok(wait_applied($node), "$id: the record is read");
	peaks_are_small($id);

	# a string in a json column is spelled as PostgreSQL spells it
	my $spelled = defined $unescaped ? q{as_json::text = to_json(as_text)::text} : sprintf q{md5(as_json::text) = '%s'}, md5_hex($value);
	is(fate('documents', $id, $record, "concat_ws(' ', md5(as_text), $spelled, as_jsonb = as_json::jsonb)"),
		$documents || join(' ', md5_hex($text), 't', 't'), "$id: what becomes of it as text, json and jsonb");
	is(fate('texts', $id, $record, 'md5(v)'), $texts || md5_hex($text), "$id: what becomes of it as text");
}
is(query(q{SELECT count(*) FILTER (WHERE id = 'before'), count(*) FILTER (WHERE id = 'after') FROM documents}),
	join('|', (scalar @shapes) x 2), 'the neighbours of all these records are applied');
is(query(q{SELECT DISTINCT regexp_replace(reason, '\d+ MB', 'N MB') FROM spine_dead_letters WHERE sqlstate = '54000' AND reason !~ 'deep'}),
	'jsonb of its values would take about N MB of memory to make, more than spine.max_record_memory allows',
	'the dead letter of a record that costs too much names the setting that refused it');
is_deeply([ worker_pids($node) ], \@pids, 'the workers are still the same');

#
# Several at once: all of them are in the log when a worker starts.
#
sub at_once
{
	my ($what, @records) = @_;

	query(q{SELECT spine_pause('texts'), spine_pause('documents')});
	query('TRUNCATE documents, texts, spine_dead_letters');
	send_records('documents', @records);
	query(q{SELECT spine_resume('texts'), spine_resume('documents')});
	ok(wait_applied($node), "$what: the records are read");
	peaks_are_small($what);
	is(query('SELECT count(*), count(DISTINCT md5(as_text)) FROM documents'), join('|', (scalar @records) x 2),
		"$what: all are applied as text, json and jsonb");
	is(query('SELECT count(*), count(DISTINCT md5(v)) FROM texts'), join('|', (scalar @records) x 2),
		"$what: all are applied as text");
	return;
}

# A document with a text of its own.
sub numbered
{
	my ($id, $bytes, $before, $piece, $after) = @_;

	return qq({"id":"$id","v":) . value_of($bytes, $before, $piece, $after =~ s/N/$id/r) . '}';
}

at_once('large records', map { numbered($_, 15_000_000, '"', 'x', 'N"') } 1 .. 5);
at_once('arrays that cost as much as is allowed', map { numbered($_, 1_300_000, '[1', ',1', ',N]') } 1 .. 40);
at_once('objects that cost as much as is allowed', map { numbered($_, 400_000, '[{}', ',{}', ',N]') } 1 .. 40);

#
# An upsert keeps the keys of a batch in memory: here jsonb, which costs much, and which
# is too large for an index.  And an error message quotes the value that it refuses.
#
send_records('keyed', map { numbered($_, 400_000, '[{}', ',{}', ',N]') } 1 .. 6);
make_pipeline($node, name => 'keyed', topic => 'keyed', target => 'keyed', mode => 'upsert',
	key => '{k}', version => 'version', columns => '{"k": "v", "version": "id", "v": "v"}');
send_records('numbers', numbered(1, 16_000_000, '"', 'x', 'N"'));
make_pipeline($node, name => 'numbers', topic => 'numbers', target => 'numbers', mode => 'append',
	columns => '{"n": "v"}');
send_lines($broker->{address}, 'keys', 0, value_of(990_000, '[{}', ',{}', ']') . "\t{}\n[1,2]\t{}\n");
make_pipeline($node, name => 'keys', topic => 'keys', target => 'keys', mode => 'append',
	columns => '{"k": "$key"}');
ok(wait_applied($node), 'costly keys, and text for a number: the records are read');
peaks_are_small('costly keys, and text for a number');
is(query(q{SELECT pipeline, sqlstate, count(*) FROM spine_dead_letters GROUP BY 1, 2 ORDER BY 1, 2}),
	"keyed|54000|6\nkeys|54000|1\nnumbers|22P02|1", 'costly keys, and text for a number: dead letters');
is(query('SELECT k FROM keys'), '[1, 2]', 'a record with an ordinary key is applied');

#
# No single record stops its pipeline, even where a batch has no room for a second one.
#
query(<<'SQL');
CREATE TABLE guarded (id text, v text);
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 'bad' THEN
		RAISE EXCEPTION 'not this one' USING ERRCODE = '42501';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
SQL
send_records('guarded', map { numbered($_, 9_000_000, '"', 'x', 'N"') } 'bad', 'good');
make_pipeline($node, name => 'guarded', topic => 'guarded', target => 'guarded', mode => 'append');
ok(wait_applied($node), 'large records, the first with an error of the schema: they are read');
peaks_are_small('large records, the first with an error of the schema');
is(query(q{SELECT id FROM guarded}), 'good', 'the second large record is applied');
is(query(q{SELECT sqlstate FROM spine_dead_letters WHERE pipeline = 'guarded'}), '42501', 'the first large record is a dead letter');

#
# A batch of small records for a wide table: each column takes memory for each record.
#
query('DELETE FROM spine_pipelines');
query('CREATE TABLE wide (' . join(', ', map { "c$_ bool" } 1 .. 1600) . ')');
send_lines($broker->{address}, 'wide', 0, qq{k\t{"c1":true}\n} x 50_000);
make_pipeline($node, name => 'wide', topic => 'wide', target => 'wide', mode => 'append');
ok(wait_applied($node), 'small records for a wide table: they are read');
peaks_are_small('small records for a wide table');
is(query('SELECT count(*) FROM wide'), '50000', 'small records for a wide table: they are applied');

#
# Thousands of tiny headers: librdkafka makes an object of each.
#
query('CREATE TABLE headed (n int)');
my @headers = map { ('-H', 'h=') } 1 .. 25_000;
append_to_file("$work/lines", "{\"n\": 1}\n" x 50);
foreach (1 .. 10)
{
	system('kcat', '-b', $broker->{address}, '-q', '-P', '-t', 'headed', '-p', 0, '-z', 'zstd', '-l', @headers,
		"$work/lines") == 0
	  or die 'kcat failed';
}
make_pipeline($node, name => 'headed', topic => 'headed', target => 'headed', mode => 'append');
ok(wait_applied($node), 'records with thousands of headers: they are read');
peaks_are_small('records with thousands of headers');
is(query('SELECT count(*) FROM headed'), '500', 'records with thousands of headers: they are applied');
done_testing();
