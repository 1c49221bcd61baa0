# A real Kafka for the tests in this directory, and what they do to it.
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
  topic transaction start_sending send_with
);

my $work = tempdir(CLEANUP => 1);
my $test_dir = dirname(__FILE__);
my $script = "$test_dir/../../tools/kafka.sh";
my $client = "$work/client";
my @started;
my @proxies;

# Starts a Kafka of the test's own: { address, dir, and what its env file says }.
# With $BROKERS that one is used, and its topics are not touched unless the test
# has made them.
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

# For tests that kill the broker, or need its other listeners.
sub need_own_kafka
{
	plan skip_all => 'BROKERS is set: this test needs a Kafka of its own' if $ENV{BROKERS};
	return;
}

sub run_script
{
	my ($command, $kafka) = @_;

	# its output would be Kafka's, for as long as that runs
	IPC::Run::run([ $script, $command, $kafka->{dir} ], '<', \undef, '>', "$work/out", '2>&1')
	  or die "tools/kafka.sh $command: " . slurp_file("$work/out");
	return;
}

# One that is killed has ended, with all it had open, when this returns: it can be
# started again.
sub signal_kafka
{
	my ($kafka, $signal) = @_;
	my $pid = slurp_file("$kafka->{dir}/pid") + 0;

	kill $signal, $pid;
	return if $signal ne 'KILL';
	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		# nobody may have waited for it: a zombie, without other threads
		my @threads = map { eval { slurp_file($_) } // '' } glob "/proc/$pid/task/*/stat";

		return if !@threads || @threads == 1 && $threads[0] =~ /.*\) Z/s;
		usleep(10_000);
	}
	die 'Kafka does not end';
}

# Starts one that was killed, on the same ports.
sub restart_kafka
{
	my ($kafka) = @_;

	run_script('start', $kafka);
	return;
}

# Removes the data of one that was killed: what starts next is another cluster.
sub forget_kafka
{
	my ($kafka) = @_;

	system_or_bail('rm', '-rf', "$kafka->{dir}/data");
	return;
}

# Kills it, and keeps a copy of its data.
sub save_kafka
{
	my ($kafka) = @_;

	kill_kafka($kafka);
	system_or_bail('cp', '-a', "$kafka->{dir}/data", "$kafka->{dir}/saved");
	return;
}

# Kills it, and gives it back the data it had then.
sub put_back_kafka
{
	my ($kafka) = @_;

	kill_kafka($kafka);
	forget_kafka($kafka);
	system_or_bail('mv', "$kafka->{dir}/saved", "$kafka->{dir}/data");
	return;
}

sub kill_kafka
{
	my ($kafka) = @_;
	my $pid = slurp_file("$kafka->{dir}/pid") + 0;

	kill 'KILL', $pid;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		# it is nobody's child here, and may stay a zombie where init does not look
		return if !-e "/proc/$pid" || slurp_file("/proc/$pid/stat") =~ /^\d+ \(.*\) Z/;
		usleep(100_000);
	}
	die 'Kafka does not end';
}

# Starts a proxy, through which Kafka is then reached at $kafka->{KAFKA_PROXIED}:
# see test/kafka/proxy.  Lives until the test ends.
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

# Sends the values in one transaction, which ends with 'commit' or 'abort'.
sub transaction
{
	my ($kafka, $end, $topic, $partition, @values) = @_;

	IPC::Run::run([ $client, $kafka->{address}, $end, $topic, $partition ],
		'<', \join('', map { "$_\n" } @values))
	  or die "client failed: $end";
	return;
}

# Starts to send the lines "key<TAB>value" of a file, each once, through restarts
# of the broker; to be ended with IPC::Run's finish.
sub start_sending
{
	my ($kafka, $topic, $file) = @_;

	return IPC::Run::start([ $client, $kafka->{address}, 'send', $topic ], '<', $file, '2>', "$work/sending");
}

# Sends lines of "key<TAB>value" with more options of kcat's.
sub send_with
{
	my ($kafka, $topic, $partition, $text, @options) = @_;

	IPC::Run::run([ 'kcat', '-b', $kafka->{address}, '-q', '-P', '-t', $topic, '-p', $partition,
			'-K', '\t', '-X', 'acks=all', @options ], '<', \$text)
	  or die "kcat failed: @options";
	return;
}

# A test that dies leaves none behind, not even one that is stopped; nor a proxy.
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
