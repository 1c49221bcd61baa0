# The memory that a record takes is bounded by its size, not by its shape: a record of
# 16 MB, which may be a few kB on its way, takes at most 256 MB of a worker, all in all,
# whatever is in it and whether it is applied or becomes a dead letter.
#
# Broken when something makes a tree of a record or copies it once too often, when what
# jsonb would cost is not counted, or is where no jsonb is made of it, when many such
# records are taken at once, or when one that costs too much takes its neighbours along.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	MB => 1024 * 1024,
	MAX_KB => 256 * 1024
};

my $broker = start_broker('documents', 3);
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$broker->{address}'
spine.batch_interval = '1s'		# what is sent at once is one batch
shared_buffers = '8MB'			# which would count as the worker's memory
CONF

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

# A document with its id, and a value of about 16 MB: n times a piece.
sub document
{
	my ($id, $before, $piece, $after, $bytes) = @_;

	return qq({"id":"$id","v":$before) . $piece x (($bytes // 16_000_000) / length $piece) . "$after}";
}

# Sends documents, compressed, each in a batch of its own.
sub send_documents
{
	my ($topic, @documents) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/document';

	foreach my $document (@documents)
	{
		open my $handle, '>', $file or die $!;
		binmode $handle;
		print $handle $document;
		close $handle;
		run_log([ 'kcat', '-b', $broker->{address}, '-q', '-P', '-t', $topic, '-p', 0, '-z', 'zstd',
				'-X', 'message.max.bytes=17000000', $file ]) or die 'kcat failed';
	}
	return;
}

# The most memory that the process has had, with all that it shares: no peak is missed.
sub peak_kb
{
	my ($pid) = @_;

	slurp_file("/proc/$pid/status") =~ /VmHWM:\s*(\d+) kB/ or die;
	if ($ENV{RESET}) { my $r = $1; open my $h, '>', "/proc/$pid/clear_refs" or die; print $h 5; close $h; return $r; }
	return $1;
}

query(<<'SQL');
SELECT spine_pause('orders');
CREATE TABLE documents (id text, as_text text, as_json json, as_jsonb jsonb);
CREATE TABLE texts (id text, v text);
SQL
make_pipeline($node, name => 'documents', topic => 'documents', target => 'documents', mode => 'append',
	columns => '{"id": "id", "as_text": "v", "as_json": "v", "as_jsonb": "v"}');
make_pipeline($node, name => 'texts', topic => 'texts', target => 'texts', mode => 'append',
	columns => '{"id": "id", "v": "v"}');
send_documents('documents', '{"id":"first"}');
send_documents('texts', '{"id":"first"}');
ok(wait_applied($node), 'both pipelines run');

my %worker = map { split /\|/ } split /\n/,
  query(q{SELECT split_part(application_name, ' ', 1), pid FROM pg_stat_activity WHERE backend_type = 'spine worker'});
diag query(q{SELECT application_name, backend_type, pid, query FROM pg_stat_activity WHERE backend_type = 'spine worker'});
my @pids = worker_pids($node);
diag join ' ', map { peak_kb($_) } @pids;
# [id, before, piece, after]
my @shapes = (
	[ 'objects', '[{}', ',{}', ']' ],
	[ 'arrays', '[[]', ',[]', ']' ],
	[ 'deep arrays', '[0', ',' . '[' x 500 . ']' x 500, ']' ],
	[ 'deep objects', '[0', ',' . '{"":' x 500 . '0' . '}' x 500, ']' ],
	[ 'numbers', '[1', ',1', ']' ],
	[ 'long numbers', '[1', ',12345678901234567890', ']' ],
	[ 'empty strings', '[""', ',""', ']' ],
	[ 'nulls', '[null', ',null', ']' ],
	[ 'equal keys', '{"":1', ',"":1', '}' ],
	[ 'objects with a key', '[0', ',{"":1}', ']' ],
	[ 'white space', '[1', ' ', ']' ],
	[ 'a string', '"', 'x', '"' ],
	[ 'escapes', '"', '\n', '"' ],
	[ 'other escapes', '"', '\ud83d\ude00', '"' ],
	[ 'not ASCII', '"', "\xf0\x9f\x98\x80", '"' ],
	[ 'digits', '', '1', '' ],
	[ 'too deep', '[' x 600, ' ', ']' x 600 ],
	[ 'no end', '[1', ',1', '' ],
	[ 'invalid at the end', '[1', ',1', ',]' ]);

foreach my $shape (@shapes)
{
	my ($id, @parts) = @$shape;
	for my $topic ('documents', 'texts') {
	send_documents($topic, document($id, @parts));
	ok(wait_applied($node), "$topic, $id: applied");
	diag sprintf '%-10s %-20s %s', $topic, $id, join ' ', map { int(peak_kb($_) / 1024) } worker_pids($node);
	}
}
diag query(q{SELECT pipeline, sqlstate, left(reason, 150), substr(convert_from(substr(value, 1, 50),'utf8'), 1, 30) from spine_dead_letters});
diag query(q{SELECT id, length(as_text), length(as_json::text), pg_column_size(as_jsonb) from documents});
is_deeply([worker_pids($node)], \@pids, 'same');
done_testing();
