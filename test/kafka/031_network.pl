# Faults between spine and the broker: the broker's name does not resolve, its packets
# silently stop coming, it hangs, or it is away for a minute.  Each time the pipeline says
# what the fault is, and spine_produce fails and says how many events it has sent.  When
# the fault is over, both continue by themselves.
#
# Broken when a worker waits for ever on a dead connection, gives up on a name that was
# not found, or never says "running" again; and when spine_produce hangs, cannot be
# cancelled, or leaves a session that cannot send.
use strict;
use warnings;
use Cwd qw(abs_path);

# The test runs in a mount namespace with an /etc/hosts of its own, where that is allowed.
BEGIN
{
	my @unshare = qw(unshare --user --map-current-user --mount --keep-caps);

	if (!$ENV{SPINE_TEST_HOSTS} && system("@unshare true 2>/dev/null") == 0)
	{
		my $hosts = abs_path($ENV{TESTDATADIR} // '.') . '/hosts';

		open my $file, '>', $hosts or die "$hosts: $!";
		open $file, '>', "$hosts.nsswitch" or die "$hosts.nsswitch: $!";
		print $file "passwd: files\ngroup: files\nhosts: files\n";
		close $file;
		$ENV{SPINE_TEST_HOSTS} = $hosts;
		exec @unshare, 'sh', '-c',
		  'mount --bind "$SPINE_TEST_HOSTS" /etc/hosts && mount --bind "$SPINE_TEST_HOSTS.nsswitch" /etc/nsswitch.conf && exec "$@"',
		  'sh', $^X, (map { "-I$_" } @INC), $0
		  or die "unshare: $!";
	}
}

use FindBin;
use lib $FindBin::RealBin;
use Kafka;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

need_own_kafka();

my $kafka = start_kafka();
my $proxy = start_proxy($kafka);
topic($kafka, 'create', 'events', 3);

# socket.timeout.ms: how long librdkafka waits on a dead connection, 60 s by default.
my $node = spine_node('main', conf => <<CONF);
spine.brokers = '$kafka->{KAFKA_PROXIED}'
spine.kafka_options = 'socket.timeout.ms=5000'
CONF
my $started = time;

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub says
{
	my ($fault, $reason) = @_;

	comes_to($node, "$fault: the pipeline says why it waits",
		"SELECT bool_and(state = 'waiting' AND last_error ~ '^the broker does not answer: .*$reason') FROM spine_status");
	note query('SELECT DISTINCT state, last_error FROM spine_status');
	note sprintf '%.1f s since the start', time - $started;
	return;
}

# Sends straight to Kafka, to each partition.
sub send_events
{
	my ($order_id) = @_;

	send_with($kafka, 'events', $_,
		join('', map { "k\t" . order_event(order_id => $order_id) . "\n" } 1 .. 100))
	  foreach 0 .. 2;
	return;
}

sub is_applied
{
	my ($order_id) = @_;

	comes_to($node, "$order_id: everything is applied", "SELECT count(*) = 300 FROM events WHERE order_id = '$order_id'");
	is(query("SELECT count(*) FROM events WHERE order_id = '$order_id'"), '300', "$order_id: each event is there once");
	comes_to($node, "$order_id: the pipeline runs", q{SELECT bool_and(state = 'running' AND lag = 0) FROM spine_status});
	note sprintf '%.1f s since the start', time - $started;
	return;
}

# Waits until the fault has lasted so long; some faults show only then.
sub lasts
{
	my ($begin, $seconds) = @_;
	my $left = $begin + $seconds - time;

	sleep($left) if $left > 0;
	return;
}

# A session that sends before and after each fault.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->set_query_timer_restart;

sub produce
{
	my ($settings, $n) = @_;

	$session->{stderr} = '';
	my $out = $session->query("$settings SELECT 'sent ' || spine_produce('acme', $n)");
	my $error = $session->{stderr};
	$session->{stderr} = '';
	note $error if $error;
	return wantarray ? ($out, $error) : $out;
}

sub can_produce
{
	my ($when) = @_;

	like(produce('', 1000), qr/sent 1000/, "$when: spine_produce works");
	return;
}

sub cannot_produce
{
	my ($fault, $reason) = @_;
	my ($out, $error) = produce('', 10);

	like($error, qr/could not deliver all events: .*0 of 10 events were acknowledged/s,
		"$fault: spine_produce fails, and says how many arrived");
	like($error, qr/$reason/, "$fault: spine_produce says why");
	($out, $error) = produce(q{SET statement_timeout = '300ms';}, 10);
	like($error, qr/canceling statement due to statement timeout.*the broker has acknowledged 0 events/s,
		"$fault: spine_produce obeys statement_timeout");
	produce('RESET statement_timeout;', 0);
	return;
}

# Sets another broker, and waits until the session has heard of it.
sub move_to
{
	my ($address) = @_;

	set_config($node, 'spine.brokers' => $address);
	for (1 .. 10_000)
	{
		return if $session->query('SHOW spine.brokers') eq $address;
	}
	die 'the session does not hear of another broker';
}

# Cancels spine_produce, as Ctrl-C does.
sub cancels
{
	my ($fault) = @_;
	my $pid = $session->query('SELECT pg_backend_pid()');

	$session->{stderr} = '';
	$session->query_until(qr/begun/, "\\echo begun\nSELECT spine_produce('acme', 10);\n");
	comes_to($node, "$fault: spine_produce waits",
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND query ~ 'spine_produce' AND state = 'active'");
	query("SELECT pg_cancel_backend($pid)");
	comes_to($node, "$fault: spine_produce is cancelled",
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'idle'");
	$session->query('SELECT 1');
	like($session->{stderr}, qr/canceling statement due to user request/, "$fault: the error says so");
	$session->{stderr} = '';
	return;
}

#
# Packets stop coming, and no connection is closed
#
wait_for_state($node, 'running');
can_produce('before all');
send_events('before all');
is_applied('before all');

cut_proxy($proxy);
send_events('sent while cut off');
cannot_produce('a silent connection', 'timed out');
cancels('a silent connection');
says('a silent connection', 'imed out');
mend_proxy($proxy);
is_applied('sent while cut off');
can_produce('after a silent connection');

# while many events are on their way
$session->query_until(qr/begun/, "\\echo begun\nSELECT spine_produce('cut off', 20000000);\n");
comes_to($node, 'some of many events arrive', q{SELECT count(*) > 1000 FROM events WHERE tenant = 'cut off'});
cut_proxy($proxy);
$session->query('SELECT 1');
like($session->{stderr}, qr/could not deliver all events.*[1-9]\d* of 20000000 events were acknowledged/s,
	'cut off while it sends, spine_produce fails, and says how many arrived');
my ($arrived) = $session->{stderr} =~ /(\d+) of 20000000/;
note $session->{stderr};
mend_proxy($proxy);
can_produce('after the cut');
ok(wait_applied($node), 'everything is applied');
cmp_ok(query(q{SELECT count(*) FROM events WHERE tenant = 'cut off'}), '>=', $arrived // -1, 'the events that it counts have arrived');

# while nothing is on its way: an idle connection dies unseen
cut_proxy($proxy);
mend_proxy($proxy);
send_events('after a cut that nobody saw');
is_applied('after a cut that nobody saw');
can_produce('after a cut that nobody saw');

#
# A broker that hangs
#
my $since = time;
signal_kafka($kafka, 'STOP');
cannot_produce('a broker that hangs', 'timed out');
cancels('a broker that hangs');
says('a broker that hangs', 'imed out');
lasts($since, 20);
signal_kafka($kafka, 'CONT');
send_events('after it hung');
is_applied('after it hung');
can_produce('after it hung');

#
# A name that does not resolve, and then does
#
SKIP:
{
	skip 'no mount namespace here, to have an /etc/hosts', 1 unless $ENV{SPINE_TEST_HOSTS};

	my $port = $kafka->{address} =~ s/.*://r;

	move_to("kafka.test:$port");
	cannot_produce('a name that is not known', 'Failed to resolve');
	cancels('a name that is not known');
	says('a name that is not known', 'Failed to resolve');
	send_events('sent before the name was known');
	append_to_file($ENV{SPINE_TEST_HOSTS}, "127.0.0.1 kafka.test\n");
	is_applied('sent before the name was known');
	can_produce('a name that is known now');
}

#
# Away for a minute
#
move_to($kafka->{address});
can_produce('before it is killed');
$since = time;
my $log_start = -s $node->logfile;
signal_kafka($kafka, 'KILL');
cannot_produce('a broker that is away', 'Connection refused');

# what one call has left in the queue is dropped a little later, and nothing of the next call with it
my $errors = '';
$errors .= (produce(q{SET statement_timeout = '5ms';}, 10))[1] for 1 .. 100;
unlike($errors, qr/Purged/, 'a broker that is away: a call that follows a cancelled one is not cut short');
like($errors, qr/statement timeout/, '... but obeys statement_timeout');
produce('RESET statement_timeout;', 0);

cancels('a broker that is away');
says('a broker that is away', 'Connection refused');
lasts($since, 60);
my $said = () = substr(slurp_file($node->logfile), $log_start) =~ /pipeline "orders" is waiting: /g;
# the worker tries a dozen times; librdkafka words the reason in several ways, in turn
cmp_ok($said, '<=', 6, 'a broker that is away: the log does not repeat it over and over');
note "logged $said times";
restart_kafka($kafka);
send_events('after a minute');
is_applied('after a minute');
can_produce('after a minute');

$session->quit;
$node->stop;
stop_kafka($kafka);
done_testing();
