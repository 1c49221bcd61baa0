# Requests of the Kafka protocol, valid and invalid, for a broker that should survive
# them or be replaced.
package KafkaFrames;

use strict;
use warnings;
use Exporter 'import';
use Socket;
use Time::HiRes qw(time);

our @EXPORT = qw(join_group_of_death random_frame send_frames);

use constant { METADATA => 3, JOIN_GROUP => 11, TXN_OFFSET_COMMIT => 28 };

sub string   { return pack('n/a*', $_[0]) }
sub nullable { return defined $_[0] ? string($_[0]) : pack('n', 0xffff) }
sub bytes    { return pack('N/a*', $_[0]) }
sub int64    { return pack('q>', $_[0]) }
sub array    { return pack('N', scalar @_) . join('', @_) }

# A frame, with the correct size.
sub frame
{
	my ($key, $version, $body, $correlation_id) = @_;

	return bytes(pack('nnN', $key, $version, $correlation_id // 1) . string('spine') . $body);
}

# A batch with one record.
sub record_batch
{
	my $record = pack('CCCC', 0, 0, 0, 2) . 'k' . pack('C', 16) . '{"a": 1}' . pack('C', 0);
	my $records = pack('C', 2 * length $record) . $record;
	my $tail = pack('nNq>q>q>nNN', 0, 0, 0, 0, -1, 0xffff, 0xffffffff, 1) . $records;

	return int64(0) . pack('NNCN', 9 + length $tail, 0, 2, 0) . $tail;
}

# What a client sends: [ request, version, a sub that makes the body for a topic ].
my @requests = (
	[ 0, 3, sub { nullable(undef) . pack('nN', 1, 1000) . array(string($_[0]) . array(pack('N', 0) . bytes(record_batch()))) } ],
	[ 1, 4, sub { pack('NNNNC', 0xffffffff, 10, 1, 1 << 20, 0) . array(string($_[0]) . array(pack('N', 0) . int64(0) . pack('N', 1 << 16))) } ],
	[ 1, 11, sub { pack('NNNNCNN', 0xffffffff, 10, 1, 1 << 20, 0, 0, 0xffffffff)
		. array(string($_[0]) . array(pack('NN', 0, 0xffffffff) . int64(0) . int64(-1) . pack('N', 1 << 16))) . array() . string('') } ],
	[ 2, 1, sub { pack('N', 0xffffffff) . array(string($_[0]) . array(pack('N', 0) . int64(-1))) } ],
	[ METADATA, 1, sub { array(string($_[0])) } ],
	[ METADATA, 4, sub { array(string($_[0])) . pack('C', 1) } ],
	[ 8, 2, sub { string('group') . pack('N', 0xffffffff) . string('') . int64(-1)
		. array(string($_[0]) . array(pack('N', 0) . int64(1) . nullable(undef))) } ],
	[ 9, 1, sub { string('group') . array(string($_[0]) . array(pack('N', 0))) } ],
	[ 10, 0, sub { string('group') } ],
	[ 10, 1, sub { string('group') . pack('C', 0) } ],
	[ JOIN_GROUP, 0, sub { string('group') . pack('N', 6000) . string('') . string('consumer') . array(string('range') . bytes('x' x 8)) } ],
	[ JOIN_GROUP, 5, sub { string('group') . pack('NN', 6000, 6000) . string('') . nullable(undef) . string('consumer') . array(string('range') . bytes('x' x 8)) } ],
	[ 12, 0, sub { string('group') . pack('N', 1) . string('member') } ],
	[ 13, 0, sub { string('group') . string('member') } ],
	[ 14, 0, sub { string('group') . pack('N', 1) . string('member') . array(string('member') . bytes('x' x 8)) } ],
	[ 17, 0, sub { string('PLAIN') } ],
	[ 18, 0, sub { '' } ],
	[ 22, 0, sub { nullable('transaction') . pack('N', 6000) } ],
	[ 23, 2, sub { array(string($_[0]) . array(pack('NNN', 0, 0, 0))) } ],
	[ 24, 0, sub { string('transaction') . int64(1) . pack('n', 0) . array(string($_[0]) . array(pack('N', 0))) } ],
	[ 25, 0, sub { string('transaction') . int64(1) . pack('n', 0) . string('group') } ],
	[ 26, 0, sub { string('transaction') . int64(1) . pack('nC', 0, 1) } ],
	[ TXN_OFFSET_COMMIT, 0, sub { string('transaction') . string('group') . int64(1) . pack('n', 0)
		. array(string($_[0]) . array(pack('N', 0) . int64(1) . nullable(undef))) } ]);

# The values that a hostile client would use for lengths, counts and numbers.
my @odd_numbers = (0xffffffff, 0x80000000, 0x7fffffff, 0, 1, 1000, 1001, 65536, 0x10000000, 0x7f7f7f7f);

sub random_bytes { return join('', map { chr int rand 256 } 1 .. $_[0]) }

sub mutate
{
	my ($frame) = @_;
	my $at = 4 + int rand(length($frame) - 3);
	my $kind = int rand 6;

	substr($frame, $at, 1) = chr int rand 256 if $kind == 0 && $at < length $frame;
	substr($frame, $at, 4) = pack('N', $odd_numbers[ rand @odd_numbers ]) if $kind == 1;
	substr($frame, $at, 2) = pack('n', $odd_numbers[ rand @odd_numbers ] & 0xffff) if $kind == 2;
	substr($frame, $at) = '' if $kind == 3;
	substr($frame, $at, 0) = random_bytes(1 + int rand 20) if $kind == 4;
	substr($frame, 4 + int rand 4, 1) = chr int rand 30 if $kind == 5 && length $frame >= 8;
	return $frame;
}

# A request that was valid before it was changed, or, one time in ten, random bytes.
sub random_frame
{
	my ($topic) = @_;
	my $frame = bytes(pack('nn', int rand 40, int rand 12) . random_bytes(int rand 200));

	if (rand() > 0.1)
	{
		my ($key, $version, $body) = @{ $requests[ rand @requests ] };

		# these requests end too many brokers, so few of them are sent
		($key, $version, $body) = @{ $requests[ rand @requests ] }
		  while ($key == METADATA || $key == JOIN_GROUP || $key == TXN_OFFSET_COMMIT) && rand() < 0.98;

		$frame = frame($key, $version, $body->($topic));
		$frame = mutate($frame) for 0 .. int rand 3;
	}
	# The size is nearly always right, because a wrong one ends the broker, and nothing
	# after it would be read.
	substr($frame, 0, 4) = pack('N', rand() < 0.998 ? length($frame) - 4 : $odd_numbers[ rand @odd_numbers ]);
	return $frame;
}

# A JoinGroup request with -1 protocols, which kills the mock cluster of librdkafka
# 2.0.2.
sub join_group_of_death
{
	return frame(JOIN_GROUP, 0, string('group') . pack('N', 6000) . string('') . string('consumer') . pack('N', 0xffffffff));
}

# Sends frames to the broker, on several connections at a time, until it has taken `n`.
# A valid request follows each frame.  A frame counts when the broker has answered that
# request, or has hung up.  After a short silence the connection is shut down for sending.
# new_address returns where the broker is now, in case it has moved.
sub send_frames
{
	my ($n, $new_address, $make_frame) = @_;
	my $sentinel = frame(18, 0, '', 0x5e5e5e5e);
	my $answer = pack('N', 0x5e5e5e5e);
	my %result = (taken => 0, moved => 0, hung_up => 0, silent => 0);
	my ($host, $port) = split /:/, $new_address->();
	my %socket_of;
	my %sent_at;
	my $all = '';

	local $SIG{PIPE} = 'IGNORE';
	my $send = sub {
		my ($fd) = @_;

		syswrite $socket_of{$fd}, $make_frame->() . $sentinel;
		$sent_at{$fd} = time;
	};
	while ($result{taken} < $n)
	{
		# no more connections than the broker's queue for new ones holds
		while (keys %socket_of < 5)
		{
			socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";

			if (connect($socket, pack_sockaddr_in($port, inet_aton($host))))
			{
				my $fd = fileno $socket;

				$socket_of{$fd} = $socket;
				vec($all, $fd, 1) = 1;
				$send->($fd);
			}
			else
			{
				($host, $port) = split /:/, $new_address->();
				$result{moved}++;
			}
		}
		select(my $ready = $all, undef, undef, 0.02);
		foreach my $fd (keys %socket_of)
		{
			if (vec($ready, $fd, 1))
			{
				my $got = sysread($socket_of{$fd}, my $data, 1 << 16);

				next if $got && index($data, $answer) < 0;
				$result{taken}++;
				if ($got)
				{
					$send->($fd);
					next;
				}
				$result{hung_up}++;
				vec($all, $fd, 1) = 0;
				delete $socket_of{$fd};
			}
			elsif ($sent_at{$fd} && $sent_at{$fd} < time - 0.05)
			{
				$result{silent}++;
				$sent_at{$fd} = 0;
				shutdown $socket_of{$fd}, 1;
			}
		}
	}
	return \%result;
}

1;
