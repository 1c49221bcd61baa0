# The embedded broker answers a Fetch as soon as there is something, however long its
# client would wait, and not before.
#
# Broken when
# - an event waits until the worker's fetch ends, or an idle fetch is answered all the time;
# - a record is produced between the mock cluster's empty answer and the wait, and the
#   client waits all the same;
# - the answer to another request of the client waits behind the fetch;
# - an error, a version of Fetch without this wait, or a large answer is kept back or lost.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use KafkaFrames;
use SpineTest;
use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { PRODUCE => 0, FETCH => 1, METADATA => 3 };
use constant LONG_MS => 1000 * 3600;
use constant ERROR_UNKNOWN_TOPIC => 3;

my $patience_s = $PostgreSQL::Test::Utils::timeout_default;
my $node = spine_node('main');
my $address = $node->safe_psql('postgres', 'SELECT spine_brokers()');

# A client that speaks the protocol itself, so that it knows when it has no answer.
sub client { return IO::Socket::INET->new(PeerAddr => $address, Timeout => $patience_s) // die "connect: $!" }

sub ask
{
	my ($client, $id, $key, $version, $body) = @_;

	$client->syswrite(KafkaFrames::frame($key, $version, $body, $id)) or die "write: $!";
	return;
}

sub has_answer { return IO::Select->new($_[0])->can_read(0) ? 1 : 0 }

sub read_bytes
{
	my ($client, $size) = @_;
	my $bytes = '';

	while (length $bytes < $size)
	{
		IO::Select->new($client)->can_read($patience_s) or die 'no answer';
		$client->sysread($bytes, $size - length $bytes, length $bytes) or die 'the broker hung up';
	}
	return $bytes;
}

# The next answer: its correlation id and its body.
sub answer
{
	my ($client) = @_;
	my $frame = read_bytes($client, unpack('N', read_bytes($client, 4)));

	return (unpack('N', $frame), substr($frame, 4));
}

# Asks for the records of partition 0 of a topic from an offset on.
sub fetch
{
	my ($client, $id, $topic, $offset, $wait_ms, $version) = @_;
	my $body = pack('NNNNC', 0xffffffff, $wait_ms, 1, 1 << 24, 0);

	$version //= 11;
	if ($version == 11)
	{
		$body .= pack('NN', 0, 0xffffffff)
		  . KafkaFrames::array(KafkaFrames::string($topic)
			  . KafkaFrames::array(pack('NN', 0, 0xffffffff) . KafkaFrames::int64($offset) . KafkaFrames::int64(-1) . pack('N', 1 << 24)))
		  . KafkaFrames::array() . KafkaFrames::string('');
	}
	else
	{
		$body .= KafkaFrames::array(KafkaFrames::string($topic)
			  . KafkaFrames::array(pack('N', 0) . KafkaFrames::int64($offset) . pack('N', 1 << 24)));
	}
	ask($client, $id, FETCH, $version, $body);
	return;
}

# Makes the topic, too, if it does not exist.
sub ask_for_topics
{
	my ($client, $id, $topic) = @_;

	ask($client, $id, METADATA, 1, KafkaFrames::array(KafkaFrames::string($topic // 'topic')));
	return;
}

# What version 11 says about the only partition: its error, and how many bytes of records.
sub error_of { return unpack('n', substr($_[0], 10 + 4 + 2 + unpack('n', substr($_[0], 14, 2)) + 4 + 4, 2)) }
sub size_of { return unpack('l>', substr($_[0], 10 + 4 + 2 + unpack('n', substr($_[0], 14, 2)) + 4 + 38, 4)) }

# When this has been answered, the broker has seen what was sent to it before.
sub others_are_served
{
	my ($what) = @_;
	my $other = client();

	ask_for_topics($other, 77);
	is((answer($other))[0], 77, "$what: another client is served");
	return;
}

#
# A worker: its fetch lasts longer than the test would wait
#
sub applies
{
	my ($what, $tenant) = @_;

	is($node->safe_psql('postgres', "SELECT spine_produce('$tenant', 1)"), '1', "$what: an event is produced");
	is($node->safe_psql('postgres', q{SELECT spine_wait('150s')}), 't', "$what: it is applied, long before the fetch ends");
	return;
}

set_config($node, 'spine.kafka_options' => 'fetch.wait.max.ms=299000 socket.timeout.ms=300000');
applies('with a long fetch', 'first');
applies('in the next fetch', "again $_") foreach 1 .. 5;
set_config($node, 'spine.kafka_options' => '');

#
# A fetch without records is kept until somebody produces
#
ask_for_topics(my $client = client(), 1);
answer($client);
fetch($client, 2, 'topic', 0, LONG_MS);
others_are_served('an empty fetch');
ok(!has_answer($client), 'an empty fetch is not answered');
send_values($address, 'topic', 0, ['one']);
my ($id, $body) = answer($client);
is("$id " . error_of($body) . ' ' . size_of($body), '2 0 0', 'an empty fetch is answered when there is something');
fetch($client, 3, 'topic', 0, LONG_MS);
($id, $body) = answer($client);
cmp_ok(size_of($body), '>', 60, 'the next fetch brings the record');
fetch($client, 4, 'topic', 1, LONG_MS);
others_are_served('at the end');
ok(!has_answer($client), 'the fetch behind the record is not answered');

# Another request of this client does not wait behind the fetch.
ask_for_topics($client, 5);
is(join(' ', map { (answer($client))[0] } 1 .. 2), '4 5', 'both are answered, in their order');
fetch($client, 6, 'topic', 1, LONG_MS);
fetch($client, 7, 'topic', 1, LONG_MS);
is((answer($client))[0], 6, 'a second fetch ends the first one');

# In the pieces in which a slow network would bring it.
my $slow = client();
my $request = KafkaFrames::frame(METADATA, 1, KafkaFrames::array(KafkaFrames::string('topic')), 8);
$slow->syswrite($_), others_are_served('a piece') foreach $request =~ /(.{1,9})/gs;
is((answer($slow))[0], 8, 'a request that comes in pieces is answered');

# The time is over; an error; an earlier version, for which the mock cluster waits.
fetch($client, 9, 'topic', 1, 1);
is(join(' ', map { (answer($client))[0] } 1 .. 2), '7 9', 'a fetch is answered when its time is over');
fetch($client, 10, 'no such topic', 0, LONG_MS);
($id, $body) = answer($client);
is("$id " . error_of($body), '10 ' . ERROR_UNKNOWN_TOPIC, 'an error is answered at once');
fetch($client, 11, 'topic', 1, 1, 4);
is((answer($client))[0], 11, 'an earlier version of Fetch is answered when its time is over');
fetch($client, 12, 'topic', 0, LONG_MS, 4);
cmp_ok(length((answer($client))[1]), '>', 100, 'an earlier version of Fetch brings records');

# Larger than what the relay looks at.
my $large = join('', map { chr(int rand 256) } 1 .. 900_000);
send_values($address, 'topic', 0, [$large]);
fetch($client, 13, 'topic', 1, LONG_MS);
($id, $body) = answer($client);
ok($id == 13 && index($body, $large) > 0, 'a large record arrives whole');

# A client that leaves while its fetch is kept back.
fetch($client, 14, 'topic', 2, LONG_MS);
others_are_served('before it leaves');
close $client;
others_are_served('after it has left');

#
# A record and a fetch at the same time: the fetch never waits for the next record
#
sub produce
{
	my ($producer, $number) = @_;

	ask($producer, $number, PRODUCE, 3, KafkaFrames::nullable(undef) . pack('nN', 0xffff, 1000)
		  . KafkaFrames::array(KafkaFrames::string('race') . KafkaFrames::array(pack('N', 0) . KafkaFrames::bytes(KafkaFrames::record_batch()))));
	return;
}

my $producer = client();
my $reader = client();
my $seen = 0;
ask_for_topics($reader, 99, 'race');
answer($reader);
foreach my $number (0 .. 999)
{
	my @both = (sub { produce($producer, $number) }, sub { fetch($reader, 2 * $number, 'race', $number, LONG_MS) });

	$_->() foreach $number % 2 ? @both : reverse @both;
	($id, $body) = answer($reader);
	if (size_of($body) <= 0)
	{
		fetch($reader, 2 * $number + 1, 'race', $number, LONG_MS);
		($id, $body) = answer($reader);
	}
	$seen++ if size_of($body) > 0;
	answer($producer);
}
is($seen, 1000, 'each record comes with the first or the second fetch');

# More clients than the relay takes at a time: the others wait for a place.
my @clients = map { client() } 1 .. 300;
close $_ foreach splice @clients, 0, 100;
ask_for_topics($_, 200) foreach @clients;
is(scalar(grep { (answer($_))[0] == 200 } @clients), 200, 'every client gets its turn');
close $_ foreach @clients;
applies('after them', 'after');
$node->stop;
done_testing();
