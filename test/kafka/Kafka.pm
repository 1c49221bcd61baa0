# A real Kafka for the tests in this directory, and what the tests do to it.
package Kafka;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  start_kafka need_own_kafka stop_kafka restart_kafka signal_kafka forget_kafka
  save_kafka put_back_kafka
  start_proxy cut_proxy mend_proxy
  topic group_offsets transaction start_sending send_with
);

my $work = tempdir(CLEANUP => 1);
my $test_dir = dirname(__FILE__);
my $script = "$test_dir/../../tools/kafka.sh";
my $client = "$work/client";
my @started;
my @proxies;

# Starts a Kafka for the test alone: { address, dir, and the variables of its env file }.
# If $BROKERS is set, that Kafka is used instead, and the test touches only the topics
# that it has created.
sub start_kafka
{
	system_or_bail($ENV{CC} // 'cc', '-o', $client, "$test_dir/client.c", '-lrdkafka')
	  unless -x $client;
	return { address => $ENV{BROKERS} } if $ENV{BROKERS};

	my $kafka = { dir => "$work/kafka" . @started };

	push @started, $kafka;
	run_script('start', $kafka);
	foreach my $line (split /\n/, slurp_file("$kafka->{dir}/env"))
	{
		$kafka->{$1} = $2 if $line =~ /^(\w+)=(.*)/;
	}
	$kafka->{address} = $kafka->{KAFKA_PLAINTEXT};
	return $kafka;
}

# Skips tests that kill the broker, or need its other listeners, when $BROKERS is set.
sub need_own_kafka
{
	plan skip_all => 'BROKERS is set: this test needs a Kafka of its own' if $ENV{BROKERS};
	return;
}

sub run_script
{
	my ($command, $kafka) = @_;

	# Not to a pipe: Kafka inherits the output, and would hold it open as long as it runs.
	IPC::Run::run([ $script, $command, $kafka->{dir} ], '<', \undef, '>', "$work/out", '2>&1')
	  or die "tools/kafka.sh $command: " . slurp_file("$work/out");
	return;
}

# After KILL, Kafka has ended and has closed everything when this returns, so that it
# can be started again.
sub signal_kafka
{
	my ($kafka, $signal) = @_;
	my $pid = slurp_file("$kafka->{dir}/pid") + 0;

	kill $signal, $pid;
	return if $signal ne 'KILL';
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		# a zombie without other threads has ended too; perhaps nobody has waited for it
		my @threads = map { eval { slurp_file($_) } // '' } glob "/proc/$pid/task/*/stat";

		return if !@threads || @threads == 1 && $threads[0] =~ /.*\) Z/s;
		usleep(10_000);
	}
	die 'Kafka does not end';
}

# Starts a killed Kafka again, on the same ports.
sub restart_kafka
{
	my ($kafka) = @_;

	run_script('start', $kafka);
	return;
}

# Removes the data of a killed Kafka, so that the next start makes another cluster.
sub forget_kafka
{
	my ($kafka) = @_;

	system_or_bail('rm', '-rf', "$kafka->{dir}/data");
	return;
}

# Kills Kafka, and keeps a copy of its data.
sub save_kafka
{
	my ($kafka) = @_;

	signal_kafka($kafka, 'KILL');
	system_or_bail('cp', '-a', "$kafka->{dir}/data", "$kafka->{dir}/saved");
	return;
}

# Kills Kafka, and restores the data that save_kafka kept.
sub put_back_kafka
{
	my ($kafka) = @_;

	signal_kafka($kafka, 'KILL');
	forget_kafka($kafka);
	system_or_bail('mv', "$kafka->{dir}/saved", "$kafka->{dir}/data");
	return;
}

# Starts a proxy that makes Kafka reachable at $kafka->{KAFKA_PROXIED}: see
# test/kafka/proxy.  The proxy lives until the test ends.
sub start_proxy
{
	my ($kafka) = @_;
	my ($port) = $kafka->{KAFKA_PROXIED} =~ /(\d+)$/;
	my $out = '';
	my $proxy = IPC::Run::start([ $^X, "$test_dir/proxy", $port, $kafka->{KAFKA_BEHIND_PROXY} ],
		'<', \undef, '>', \$out, '2>', "$work/proxy");

	push @proxies, $proxy;
	IPC::Run::pump($proxy) until $out =~ /ready/ || !$proxy->pumpable;
	die 'the proxy does not start: ' . slurp_file("$work/proxy") unless $out =~ /ready/;
	return $proxy;
}

sub cut_proxy
{
	my ($proxy) = @_;

	$proxy->signal('USR1');
	return;
}

sub mend_proxy
{
	my ($proxy) = @_;

	$proxy->signal('USR2');
	return;
}

sub stop_kafka
{
	my ($kafka) = @_;

	return unless $kafka->{dir};
	run_script('stop', $kafka);
	@started = grep { $_ != $kafka } @started;
	return;
}

# topic($kafka, 'create', 'events', 3): see test/kafka/client.c.
sub topic
{
	my ($kafka, @command) = @_;

	run_log([ $client, $kafka->{address}, @command ]) or die "client failed: @command";
	return;
}

# What a consumer group has committed, as { topic => { partition => offset } }.
sub group_offsets
{
	my ($kafka, $group) = @_;
	my %offsets;

	IPC::Run::run([ $client, $kafka->{address}, 'group', $group ], '>', \my $out) or die 'client failed: group';
	$offsets{$1}{$2} = $3 while $out =~ /^(\S+) (\d+) (\d+)$/mg;
	return \%offsets;
}

# Sends the values in one transaction, which ends with 'commit' or 'abort'.
sub transaction
{
	my ($kafka, $end, $topic, $partition, @values) = @_;

	IPC::Run::run([ $client, $kafka->{address}, $end, $topic, $partition ],
		'<', \join('', map { "$_\n" } @values))
	  or die "client failed: $end";
	return;
}

# Starts to send the lines "key<TAB>value" of a file, each once, even through restarts
# of the broker.  The caller ends this with finish of IPC::Run.
sub start_sending
{
	my ($kafka, $topic, $file) = @_;

	return IPC::Run::start([ $client, $kafka->{address}, 'send', $topic ], '<', $file, '2>', "$work/sending");
}

# Sends lines "key<TAB>value", with additional options for kcat.
sub send_with
{
	my ($kafka, $topic, $partition, $text, @options) = @_;

	IPC::Run::run([ 'kcat', '-b', $kafka->{address}, '-q', '-P', '-t', $topic, '-p', $partition,
			'-K', '\t', '-X', 'acks=all', @options ], '<', \$text)
	  or die "kcat failed: @options";
	return;
}

# A test that dies leaves no Kafka behind, not even a suspended one, and no proxy.
END
{
	my $exit_code = $?;

	foreach my $kafka (@started)
	{
		signal_kafka($kafka, 'KILL') if -e "$kafka->{dir}/pid";
	}
	$_->kill_kill foreach @proxies;
	$? = $exit_code;
}

1;
