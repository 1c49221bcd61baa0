# What the TAP tests share: servers with spine, a broker that outlives them, records
# that are sent with kcat, and ways to wait for what should become of them.
package SpineTest;

use strict;
use warnings;
use Cwd ();
use Exporter 'import';
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IPC::Run qw(start pump finish timeout);
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  spine_node start_broker stop_broker tell_broker
  send_lines send_values send_tombstone read_log log_end broker_programs
  wait_applied wait_for_state wait_for_held_batch comes_to worker_pids client_threads
  set_config kill9_and_start kill9_and_wait freeze_node thaw_node poll_through_restart order_event make_pipeline
  grant_http_role start_http stop_http
);

my $work = tempdir(CLEANUP => 1);
my $test_dir = dirname(dirname(__FILE__));
my $event_number = 0;
my @https;
my @frozen;

# Starts a server with spine preloaded.  Options: conf => extra lines of configuration;
# extension => 0 leaves CREATE EXTENSION to the test; init => arguments for the init of
# PostgreSQL::Test::Cluster, such as [ extra => [...] ] for initdb.
sub spine_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(@{ $options{init} // [] });
	$node->append_conf('postgresql.conf', <<CONF);
shared_preload_libraries = 'spine'
max_worker_processes = 24
log_min_messages = info
CONF
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION spine')
	  unless defined $options{extension} && !$options{extension};
	return $node;
}

# Starts a broker in a process of its own: { address, process }.  The broker keeps about
# 5 MB per partition, so send compressed records, to several partitions.
sub start_broker
{
	my ($topic, $partitions, $brokers) = @_;
	my $program = "$work/broker";
	my ($in, $out) = ('', '');

	system_or_bail($ENV{CC} // 'cc', '-o', $program, "$test_dir/broker.c", '-lrdkafka')
	  unless -x $program;

	my $process = start([ $program, $topic, $partitions, $brokers // 1 ], '<', \$in, '>', \$out,
		timeout(1800));
	pump $process until $out =~ /\n/;
	chomp(my $address = $out);
	return { address => $address, process => $process, in => \$in, out => \$out };
}

# Sends a broker one of the commands of test/broker.c.
sub tell_broker
{
	my ($broker, $command) = @_;

	${ $broker->{out} } = '';
	${ $broker->{in} } .= "$command\n";
	pump $broker->{process} until ${ $broker->{out} } =~ /done/;
	return;
}

sub stop_broker
{
	my ($broker) = @_;

	# closing its standard input is not enough: a server that was started later holds it open
	$broker->{process}->signal('TERM');
	finish $broker->{process};
	return;
}

sub kcat
{
	my ($address, @arguments) = @_;

	run_log([ 'kcat', '-b', $address, '-q', @arguments ])
	  or die "kcat failed: @arguments";
	return;
}

# Sends one record per line "key<TAB>value" of the text, and waits until all of them
# are acknowledged.  partition undef: the key decides.
sub send_lines
{
	my ($address, $topic, $partition, $text) = @_;
	my $file = "$work/lines";

	open my $handle, '>', $file or die $!;
	binmode $handle;
	print $handle $text;
	close $handle;
	kcat($address, '-P', '-t', $topic, (defined $partition ? ('-p', $partition) : ()),
		'-K', '\t', '-z', 'lz4', '-X', 'acks=all', '-X', 'linger.ms=100', '-l', $file);
	return;
}

# Sends each value as one record, whatever its bytes.  Headers are "name=value".
sub send_values
{
	my ($address, $topic, $partition, $values, @headers) = @_;

	foreach my $value (@$values)
	{
		my $file = "$work/value";
		open my $handle, '>', $file or die $!;
		binmode $handle;
		print $handle $value;
		close $handle;
		kcat($address, '-P', '-t', $topic, '-p', $partition, '-k', 'k',
			(map { ('-H', $_) } @headers), $file);
	}
	return;
}

# Sends a record with a key and no value.
sub send_tombstone
{
	my ($address, $topic, $partition, $key) = @_;
	my $file = "$work/tombstone";

	open my $handle, '>', $file or die $!;
	print $handle "$key\t\n";
	close $handle;
	kcat($address, '-P', '-t', $topic, '-p', $partition, '-K', '\t', '-Z', '-l', $file);
	return;
}

# Reads everything on the topic, as lines in the given kcat format.
sub read_log
{
	my ($address, $topic, $format) = @_;
	my ($out, $err);

	IPC::Run::run([ 'kcat', '-b', $address, '-q', '-C', '-t', $topic,
			'-o', 'beginning', '-e', '-f', $format ], '>', \$out, '2>', \$err)
	  or die "kcat failed: $err";
	return $out;
}

# The sum of the end offsets of a topic's partitions: the number of records that were
# ever sent, which may be more than the broker still has.
sub log_end
{
	my ($address, $topic, $partitions) = @_;
	my $end = 0;

	for my $partition (0 .. $partitions - 1)
	{
		my ($out, $err);

		IPC::Run::run([ 'kcat', '-b', $address, '-Q', '-t', "$topic:$partition:-1" ],
			'>', \$out, '2>', \$err)
		  or die "kcat failed: $err";
		$out =~ /offset (\d+)/ or die "kcat says: $out";
		$end += $1;
	}
	return $end;
}

# Waits until everything on the topics is applied; true if it was.
sub wait_applied
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres', q{SELECT spine_wait('600s')}) eq 't';
}

# Waits until the statement returns true, and tests that it did.
sub comes_to
{
	my ($node, $what, $sql) = @_;

	ok($node->poll_query_until('postgres', $sql), $what)
	  or diag $node->safe_psql('postgres', <<'SQL');
SELECT pipeline, partition, state, next_offset, last_error FROM spine_status;
SELECT pid, backend_type, wait_event FROM pg_stat_activity;
SQL
	return;
}

# Waits until every row of spine_status has the state.
sub wait_for_state
{
	my ($node, $state, $database) = @_;

	return $node->poll_query_until($database // 'postgres',
		"SELECT bool_and(state = '$state') FROM spine_status");
}

# The pids of the running workers, of all databases.
sub worker_pids
{
	my ($node) = @_;

	return split /\n/, $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine worker' ORDER BY pid});
}

# The threads of the only worker's Kafka client.  A new client has new threads.
sub client_threads
{
	my ($node) = @_;
	my ($worker) = worker_pids($node);

	return join ' ', sort map { m{(\d+)/comm$} } grep { slurp_file($_) =~ /^rdk:main/ } glob "/proc/$worker/task/*/comm";
}

# Changes settings of the running server, as an administrator would.
sub set_config
{
	my ($node, %settings) = @_;

	$node->safe_psql('postgres',
		join('', map { "ALTER SYSTEM SET $_ = '$settings{$_}';\n" } sort keys %settings)
		  . 'SELECT pg_reload_conf();');
	return;
}

# Kills the postmaster with -9, and starts it again as soon as possible.  The old
# postmaster must be gone from the process table, and so must its orphans (a worker in
# the middle of a batch), because they keep a new postmaster from starting.
sub kill9_and_start
{
	my ($node) = @_;
	my $pid = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;

	$node->kill9;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if kill(0, $pid) == 0 && $node->start(fail_ok => 1);
		usleep(100_000);
	}
	die 'the server does not start again';
}

# Waits until a worker has an open batch that it cannot finish because of a lock.
sub wait_for_held_batch
{
	my ($node) = @_;

	comes_to($node, 'a worker is in the middle of a batch',
		q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE backend_type = 'spine worker' AND wait_event_type = 'Lock'});
	return;
}

# The process ids of a server: the postmaster's, and its children's.
sub server_pids
{
	my ($node) = @_;
	my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;
	my @pids = ($postmaster);

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open my $handle, '<', $file or next;
		my ($pid, $parent) = (readline($handle) // '') =~ /^(\d+) \(.*\) \S (\d+)/s or next;
		push @pids, $pid if $parent == $postmaster;
	}
	return @pids;
}

# The process ids of a server's embedded broker: the guard's, and the log's.
sub broker_programs
{
	my ($node) = @_;
	my $data_dir = Cwd::abs_path($node->data_dir);
	my %parent_of;

	foreach my $process (glob '/proc/[0-9]*')
	{
		next unless (readlink("$process/exe") // '') =~ m{/spine-broker$};
		next unless (readlink("$process/cwd") // '') eq $data_dir;
		open my $handle, '<', "$process/stat" or next;
		my ($pid, $parent) = (readline($handle) // '') =~ /^(\d+) \(.*\) \S (\d+)/s or next;
		$parent_of{$pid} = $parent;
	}
	return sort { exists $parent_of{ $parent_of{$a} } <=> exists $parent_of{ $parent_of{$b} } } keys %parent_of;
}

# Kills the postmaster with -9, and waits until its orphans are gone, too.
sub kill9_and_wait
{
	my ($node) = @_;
	my @pids = server_pids($node);

	$node->kill9;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if kill(0, @pids) == 0;
		usleep(100_000);
	}
	die 'the server does not go away';
}

# Suspends all processes of a server, so that the server exists but does not answer.
# The postmaster comes first, so that it starts no more processes.
sub freeze_node
{
	my ($node) = @_;

	push @frozen, (server_pids($node))[0];
	kill 'STOP', $frozen[-1];
	push @frozen, server_pids($node);
	kill 'STOP', @frozen;
	return;
}

# Resumes the suspended servers.
sub thaw_node
{
	kill 'CONT', $_ foreach splice @frozen;
	return;
}

# poll_query_until, while the server may be starting again.  A psql that is turned away
# may end before the query is written to it, and IPC::Run dies of that.
sub poll_through_restart
{
	my ($node, $database, $query) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $result = eval { $node->poll_query_until($database, $query) };
		return $result if defined $result;
		usleep(100_000);
	}
	return 0;
}

# An order event as JSON: a valid one, except for the given fields.  A field that is
# undef is left out.
sub order_event
{
	my (%fields) = @_;
	my %event = (
		event_id => sprintf('%08x-0000-4000-8000-%012x', $$, ++$event_number),
		tenant => 'acme',
		event_type => 'order_placed',
		order_id => 'ord-1',
		amount_cents => 1000,
		event_time => '2026-01-01T00:00:00Z',
		%fields);

	delete @event{ grep { !defined $event{$_} } keys %event };
	return JSON::PP->new->canonical->utf8->encode(\%event);
}

# Makes a user's pipeline with one sink.  Fields that are not given are NULL.
sub make_pipeline
{
	my ($node, %p) = @_;
	my $or_null = sub { defined $_[0] ? "\$q\$$_[0]\$q\$" : 'NULL' };

	$node->safe_psql('postgres', sprintf(<<'SQL', map { $or_null->($_) } @p{qw(name topic owner name target mode key version columns)}));
BEGIN;
INSERT INTO spine_pipelines (name, topic, owner) VALUES (%s, %s, coalesce(%s, current_user)::regrole);
INSERT INTO spine_sinks (pipeline, target, mode, key, version, columns)
VALUES (%s, %s, %s, %s, %s, %s);
COMMIT;
SQL
	return;
}

# Makes the role spine_http as README says, in one database of the node.
sub grant_http_role
{
	my ($node, $database, $schema) = @_;

	$schema //= 'public';
	$node->safe_psql($database // 'postgres', <<SQL);
DO \$\$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'spine_http') THEN
		CREATE ROLE spine_http LOGIN;
	END IF;
END \$\$;
GRANT USAGE ON SCHEMA $schema TO spine_http;
GRANT SELECT ON $schema.events, $schema.current_orders, $schema.spine_order_totals,
	$schema.spine_order_sums, $schema.spine_order_counts, $schema.spine_order_changes TO spine_http;
GRANT EXECUTE ON FUNCTION $schema.spine_readiness(), $schema.spine_metrics_text() TO spine_http;
SQL
	return;
}

# Starts spine-http for a node, as the role spine_http, on a free port: { url, port, log,
# process }.  $SPINE_HTTP may name another program than the installed one.  The options
# are those of its command line.
sub start_http
{
	my ($node, @options) = @_;
	my $log = "$work/http-" . ++$event_number . '.log';
	my $process = start(
		[   $ENV{SPINE_HTTP} // 'spine-http', '--port=0',
			'--dbname=' . $node->connstr('postgres') . ' user=spine_http', @options ],
		'<', \undef, '>', $log, '2>&1');

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $text = -e $log ? slurp_file($log) : '';

		if ($text =~ m{serving (http://[^ ]*:(\d+))/})
		{
			push @https, { url => $1, port => $2, log => $log, process => $process };
			return $https[-1];
		}
		die "spine-http ended: $text" unless $process->pumpable;
		usleep(100_000);
	}
	die 'spine-http does not start';
}

# Ends spine-http; returns its exit code, which is 0 when all is well.
sub stop_http
{
	my ($http, $signal) = @_;

	$http->{process}->signal($signal // 'TERM');
	finish $http->{process};
	@https = grep { $_ != $http } @https;
	return $http->{process}->full_result(0);
}

# A test that dies leaves no spine-http and no suspended server behind.
END
{
	my $exit_code = $?;

	thaw_node();
	$_->{process}->kill_kill for @https;
	$? = $exit_code;
}

1;
