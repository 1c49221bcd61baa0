# spine_produce tells the truth about how many events the broker has, whatever happens,
# and ends when it is told to.  Through the embedded broker, which drops records when it
# has no room for them, spine_produce loses nothing.  And when there is nothing to do,
# nothing is done.
#
# Broken when a delivery is counted wrongly, when a wait cannot be interrupted, when
# memory grows with the number of events, when producers overrun the embedded broker, or
# when something polls.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# autovacuum would write WAL at moments of its own
my $node = spine_node('embedded', conf => "autovacuum = off\n");

sub count_of
{
	my ($tenant, $in) = @_;

	return ($in // $node)->safe_psql('postgres', "SELECT count(*) FROM events WHERE tenant = \$t\$$tenant\$t\$");
}

# A size from /proc/PID/status, in MB.
sub memory_of
{
	my ($pid, $name) = @_;

	return slurp_file("/proc/$pid/status") =~ /^$name:\s+(\d+) kB/m ? $1 / 1024 : die;
}

sub pids_of
{
	my ($of, $type) = @_;

	return split /\n/, $of->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$type'");
}

my $broker = start_broker('events', 3);

# How many records a topic has had, if it exists.  The broker is busy, so kcat asks for
# all partitions at once.
sub sent_to
{
	my ($topic) = @_;
	my ($ends, $errors);

	IPC::Run::run([ 'kcat', '-b', $broker->{address}, '-Q', map { ('-t', "$topic:$_:-1") } 0 .. 3 ],
		'>', \$ends, '2>', \$errors);
	my $sum = 0;
	$sum += $1 while $ends =~ /offset (\d+)/g;
	return $sum;
}

# How many events an error says were acknowledged.
sub acknowledged
{
	my ($err) = @_;

	return $err =~ /CONTEXT:  spine_produce: the broker has acknowledged (\d+) events/ ? $1 : -1;
}

# The answer of a session, and its errors since the last call.
sub ask
{
	my ($session, $sql) = @_;
	my $answer = $session->query($sql);
	my $errors = $session->{stderr};

	$session->{stderr} = '';
	return ($answer, $errors);
}

#
# Interrupted from outside: spine_produce ends soon, says how many events there are, and
# leaves the session usable
#
my $start = time;
my ($out, $err) = ('', '');
$node->psql('postgres', <<'SQL', stdout => \$out, stderr => \$err, on_error_stop => 0);
SET statement_timeout = '5s';
SELECT spine_produce('timed out', 10000000);
SET statement_timeout = 0;
SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+)')::int / 1024;
SELECT spine_produce('same session', 10);
SELECT spine_wait('600s');
SQL
like($err, qr/ERROR:  canceling statement due to statement timeout/, '10 million with a statement_timeout');
my $n = acknowledged($err);
cmp_ok($n, '>', 0, "statement_timeout: the error says how many events there are ($n)");
my ($memory, @rest) = split /\n/, $out;
is("@rest", '10 t', 'statement_timeout: the session can still be used');
cmp_ok($memory, '<', 150, "statement_timeout: the session has not grown ($memory MB at most)");
cmp_ok(count_of('timed out'), '>=', $n, 'statement_timeout: acknowledged events are applied');
is(count_of('same session'), '10', 'statement_timeout: later events are applied once');

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/started/, "\\echo started\nSELECT spine_produce('cancelled', 10000000);\n");
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM events WHERE tenant = 'cancelled')});
$start = time;
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
($out, $err) = ask($session, q{SELECT spine_produce('after the cancel', 10)});
is($out, '10', 'pg_cancel_backend: the session can still be used');
cmp_ok(time - $start, '<', 60, sprintf('pg_cancel_backend: spine_produce ends before it has sent all (%.1f s)', time - $start));
like($err, qr/canceling statement due to user request/, 'pg_cancel_backend: the error says so');
$n = acknowledged($err);
cmp_ok($n, '>', 0, "pg_cancel_backend: the error says how many events there are ($n)");
$session->quit;
ok(wait_applied($node), 'everything is applied');
cmp_ok(count_of('cancelled'), '>=', $n, 'pg_cancel_backend: acknowledged events are applied');
is(count_of('after the cancel'), '10', 'pg_cancel_backend: later events are applied once');

#
# Tenants with hostile names arrive unchanged
#
foreach my $tenant (q{it's "quoted"}, "two\nlines\tand\ra\x08bell\x07", 'back\\slash \u0041 %s %n',
	q({"tenant": "other"}), '</script><b>&amp;', "caf\x{c3}\x{a9} \x{e2}\x{82}\x{ac} \x{f0}\x{9f}\x{98}\x{80}",
	' spaces ', q{'; DROP TABLE events; --}, 'x' x 255)
{
	my $name = $tenant =~ s/[^ -~]/?/gr;

	$node->safe_psql('postgres', "SELECT spine_produce(\$t\$$tenant\$t\$, 2); SELECT spine_wait()");
	is(count_of($tenant), '2', "tenant \"" . substr($name, 0, 40) . '"');
}
($out, $err) = ('', '');
$node->psql('postgres', q{SELECT spine_produce(repeat('x', 1024 * 1024), 1)}, stderr => \$err);
like($err, qr/tenant is too long/, 'a tenant of 1 MB is refused');

#
# kcat reads and writes the embedded broker
#
my $address = $node->safe_psql('postgres', 'SELECT spine_brokers()');
my $event = order_event(tenant => 'from kcat');
send_lines($address, 'events', 2, "any key\t$event\n");
ok(wait_applied($node), 'kcat writes to the embedded broker');
is(count_of('from kcat'), '1', 'the event from kcat is applied');
like(read_log($address, 'events', "%k %s\n"), qr/^any key \Q$event\E$/m, 'kcat reads the event from the embedded broker');
$node->safe_psql('postgres', q{SELECT spine_produce('to kcat', 1)});
like(read_log($address, 'events', "%k %s\n"), qr/^to kcat .*"tenant": ?"to kcat"/m, 'the key of an event is its tenant');

#
# More than the embedded broker can hold: producers wait for the workers
#
sub produce_at_once
{
	my ($what, $sessions, $n) = @_;
	my (undef, $broker_pid) = broker_programs($node);
	my ($worker_pid) = pids_of($node, 'spine worker');
	my $started = time;
	my @running = map {
		my ($in, $printed) = ("SELECT spine_produce('$what $_', $n);", '');
		my $process = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
			'<', \$in, '>', \my $result, '2>', \my $errors);
		{ process => $process, result => \$result, errors => \$errors };
	} 1 .. $sessions;

	foreach my $running (@running)
	{
		$running->{process}->finish;
		is(${ $running->{result} } . ${ $running->{errors} }, "$n\n", "$what: $n events are acknowledged");
	}
	ok(wait_applied($node), "$what: everything is applied");
	my $took = time - $started;
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT event_id) FROM events WHERE tenant LIKE '$what %'"),
		join('|', ($sessions * $n) x 2), "$what: every event is there once");
	note sprintf('%s: %d events/s, produced and applied; private memory: %s MB in the worker, %s MB in the broker',
		$what, $sessions * $n / $took,
		map { $_ ? int memory_of($_, 'RssAnon') : 'unknown' } $worker_pid, $broker_pid);
	return;
}

produce_at_once('four sessions', 4, 50_000);
produce_at_once('one session', 1, 300_000);

# While nothing is applied, spine_produce waits and can be interrupted.  What the broker
# had room for is not lost.
$node->safe_psql('postgres', q{SELECT spine_pause('orders')});
$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'spine worker')});
$err = '';
$node->psql('postgres', q{SET statement_timeout = '5s'; SELECT spine_produce('paused', 1000000)}, stderr => \$err);
like($err, qr/canceling statement due to statement timeout/, 'a paused pipeline: spine_produce waits');
$n = acknowledged($err);
cmp_ok($n, '>', 0, "a paused pipeline: $n events are in the broker");
$node->safe_psql('postgres', q{SELECT spine_resume('orders')});
ok($node->poll_query_until('postgres', "SELECT count(*) >= $n FROM events WHERE tenant = 'paused'"),
	'these events are applied once the pipeline is resumed');

#
# A broker that is away, or goes away
#
my $external = spine_node('external', conf => <<CONF);
autovacuum = off
spine.brokers = '$broker->{address}'
spine.kafka_options = 'message.timeout.ms=2000'
CONF

# to a topic that no pipeline reads, because this broker drops what it has no room for
$session = $external->background_psql('postgres', on_error_stop => 0);
ask($session, q{SET spine.topic = 'unread'});
$session->query_until(qr/started/, "\\echo started\nSELECT spine_produce('interrupted', 10000000);\n");
for (my $tries = 0; sent_to('unread') == 0 && $tries < 100 * $PostgreSQL::Test::Utils::timeout_default; $tries++)
{
	usleep(10_000);
}
my $broker_pid = $broker->{process}{KIDS}[0]{PID};
$start = time;
kill 'STOP', $broker_pid;
($out, $err) = ask($session, 'SELECT 1');
my $took = time - $start;
kill 'CONT', $broker_pid;
like($err, qr/ERROR:  could not deliver all events: .*\nDETAIL:  \d+ of 10000000 events were acknowledged by the broker\..*\nHINT:  Check "spine.brokers"/,
	'a broker that hangs: the error says how many events there are');
$n = acknowledged($err);
cmp_ok($n, '>', 0, "a broker that hangs: $n events are acknowledged");
cmp_ok($n, '<=', sent_to('unread'), 'a broker that hangs: the topic has at least as many events');
# otherwise spine_produce would wait as long as librdkafka does by default: five minutes
cmp_ok($took, '<', 120, sprintf('a broker that hangs: the error comes after a bounded time (%.1f s)', $took));
ask($session, 'RESET spine.topic');
is((ask($session, q{SELECT spine_produce('recovered', 10)}))[0], '10', 'the broker is back: the session can send');
ok(wait_applied($external), 'the broker is back: everything is applied');
is(count_of('recovered', $external), '10', 'the broker is back: every event is there once');

# When a session is terminated, its client is destroyed before the session's memory.
my $doomed = $external->background_psql('postgres', on_error_stop => 0);
ask($doomed, q{SET spine.topic = 'unread'});
my ($doomed_pid) = ask($doomed, 'SELECT pg_backend_pid()');
$doomed->query_until(qr/started/, "\\echo started\nSELECT spine_produce('doomed', 10000000);\n");
$external->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM spine_produced() WHERE tenant = 'doomed')});
is($external->safe_psql('postgres', "SELECT pg_terminate_backend($doomed_pid, 60000)"), 't', 'a session can be terminated while it sends');
is((ask($session, 'SELECT 1'))[0], '1', 'the terminated session takes no other with it');
unlike(slurp_file($external->logfile), qr/was terminated by signal/, 'the terminated session does not crash');
$doomed->{run}->kill_kill;

set_config($external, 'spine.brokers' => '127.0.0.1:1');
$external->poll_query_until('postgres', q{SELECT spine_brokers() = '127.0.0.1:1'});
$start = time;
($out, $err) = ask($session, q{SELECT spine_produce('nowhere', 5)});
like($err, qr/ERROR:  could not deliver all events: .*\nDETAIL:  0 of 5 events were acknowledged by the broker/,
	'no broker: spine_produce raises an error');
cmp_ok(time - $start, '<', 120, sprintf('no broker: the error comes after a bounded time (%.1f s)', time - $start));
($out, $err) = ask($session, q{SELECT spine_wait('1s')});
like($err, qr/ERROR:  the broker does not answer/, 'no broker: spine_wait raises an error');

# A session that does nothing while there is no broker: its client does not keep reports
# about each connection.  Here the client connects as often as it otherwise would in
# hours, and reports a lot each time.
my $refusing = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1') or die $!;
my $refuse = sub { $refusing->accept->close for 1 .. $_[0]; return };
$external->safe_psql('postgres', 'ALTER DATABASE postgres SET spine.enabled = off');
set_config($external, 'spine.brokers' => '127.0.0.1:' . $refusing->sockport,
	'spine.kafka_options' => 'debug=all reconnect.backoff.ms=1 reconnect.backoff.max.ms=1 message.timeout.ms=500');
$external->poll_query_until('postgres', q{SELECT spine_brokers() = '127.0.0.1:} . $refusing->sockport . q{'
	AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'spine worker')});
my ($idle_pid) = ask($session, 'SELECT pg_backend_pid()');
foreach my $call ([ 'spine_produce', q{SELECT spine_produce('nowhere', 5)} ],
	[ 'spine_topic_offsets', q{SELECT * FROM spine_topic_offsets('events')} ])
{
	($out, $err) = ask($session, $call->[1]);
	like($err, qr/ERROR: /, "$call->[0] without a broker raises an error");
	$refuse->(200);
	my $before = memory_of($idle_pid, 'RssAnon');
	$refuse->(1000);
	cmp_ok(memory_of($idle_pid, 'RssAnon') - $before, '<', 2, "after $call->[0], the idle client piles nothing up");
}

# A client that has tokens to renew is closed, with its threads, and made again when it
# is needed.
set_config($external, 'spine.kafka_options' => 'message.timeout.ms=500 security.protocol=sasl_plaintext'
	. ' sasl.mechanism=OAUTHBEARER enable.sasl.oauthbearer.unsecure.jwt=true sasl.oauthbearer.config=principal=spine');
$external->poll_query_until('postgres', q{SELECT current_setting('spine.kafka_options') ~ 'OAUTHBEARER'});
foreach my $time ('once', 'twice')
{
	($out, $err) = ask($session, q{SELECT spine_produce('nowhere', 5)});
	like($err, qr/ERROR: /, "with tokens, $time: spine_produce raises an error");
	like(slurp_file("/proc/$idle_pid/status"), qr/^Threads:\s+1$/m, "with tokens, $time: no client is left");
}
set_config($external, 'spine.kafka_options' => 'message.timeout.ms=500 security.protocol=sasl_plaintext'
	. ' sasl.mechanism=OAUTHBEARER enable.sasl.oauthbearer.unsecure.jwt=true sasl.oauthbearer.config=hush');
$external->poll_query_until('postgres', q{SELECT current_setting('spine.kafka_options') ~ 'hush'});
($out, $err) = ask($session, q{SELECT spine_produce('nowhere', 5)});
like($err, qr/sasl.oauthbearer.config cannot be read/, 'tokens that cannot be made: the error says why');
unlike($err, qr/hush/, 'and repeats nothing of the option');
set_config($external, 'spine.kafka_options' => 'message.timeout.ms=2000');
$external->safe_psql('postgres', 'ALTER DATABASE postgres RESET spine.enabled; SELECT pg_reload_conf()');
set_config($external, 'spine.brokers' => $broker->{address});
$external->poll_query_until('postgres', "SELECT spine_brokers() = '$broker->{address}'");
ok(wait_for_state($external, 'running'), 'with a broker again, the pipeline runs');
$session->quit;

#
# Nothing to do: no CPU, no WAL
#
# CPU time of all of spine's processes and of the embedded broker, in ticks of 10 ms.
sub cpu_ticks
{
	my ($of) = @_;
	my $ticks = 0;

	foreach my $spine_pid (pids_of($of, 'spine %'), broker_programs($of))
	{
		my @fields = split / /, slurp_file("/proc/$spine_pid/stat") =~ s/^.*\) //sr;
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks;
}

ok(wait_applied($_), 'everything is applied') foreach ($node, $external);
$_->safe_psql('postgres', 'CHECKPOINT') foreach ($node, $external);
# the summary in the log, and with it the commit to the consumer group, are done
$_->wait_for_log(qr/applied \d+ events in \d+ batches/) foreach ($node, $external);
my $lsn = 'SELECT pg_current_wal_insert_lsn()';
my @lsn_before = map { $_->safe_psql('postgres', $lsn) } ($node, $external);
my @ticks_before = map { cpu_ticks($_) } ($node, $external);
sleep 10;			# the one place where time itself is what counts
my @ticks = map { cpu_ticks($_) } ($node, $external);
is($node->safe_psql('postgres', $lsn), $lsn_before[0], 'idle for 10 s with the embedded broker: no WAL');
is($external->safe_psql('postgres', $lsn), $lsn_before[1], 'idle for 10 s with another broker: no WAL');
my @used = map { ($ticks[$_] - $ticks_before[$_]) * 10 } (0, 1);
cmp_ok($used[1], '<=', 50, "idle for 10 s with another broker: $used[1] ms of CPU");
cmp_ok($used[0], '<=', 500, "idle for 10 s with the embedded broker, which is asked 50 times a second: $used[0] ms of CPU");

$_->stop foreach ($node, $external);
stop_broker($broker);
done_testing();
