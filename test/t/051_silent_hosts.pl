# A host that has gone away refuses nothing: packets to it are lost.  A worker gives such a
# broker up after seconds, says so, and goes on with another one; a connection of spine-http
# to the database is watched by keepalives.
#
# Broken when the Kafka client keeps its library's patience of 30 s, during which a broker
# that has come back with another address is not found; and when an idle connection to a
# database that vanished is kept for ever.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use IO::Socket::INET;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

# A port that drops what is sent to it: its queue of connections is full.  Returns what has
# to stay open, and the address.
sub silent_port
{
	my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
	my $address = '127.0.0.1:' . $listener->sockport;
	my @clients;

	listen($listener, 0) or die $!;
	while (my $client = IO::Socket::INET->new(PeerAddr => $address, Timeout => 1))
	{
		push @clients, $client;
	}
	return ([ $listener, @clients ], $address);
}

my $broker = start_broker('events', 1);
my ($kept_open, $silent) = silent_port();
my $node = spine_node('main', conf => "spine.brokers = '$silent'\n");

# beside it, one that is more patient, but less than the library
$node->safe_psql('postgres', <<SQL);
CREATE SERVER silent FOREIGN DATA WRAPPER spine_kafka
	OPTIONS (brokers '$silent', "socket.connection.setup.timeout.ms" '20000');
CREATE TABLE patient (id int);
SELECT spine_create_pipeline('patient', topic => 'events', target => 'patient', mode => 'append', server => 'silent');
SQL

sub gives_up
{
	my ($pipeline) = @_;

	return "last_error LIKE '%Connection setup timed out in state CONNECT%' FROM spine_status WHERE pipeline = '$pipeline'";
}

comes_to($node, 'a broker that is silent is given up', 'SELECT ' . gives_up('orders'));
isnt($node->safe_psql('postgres', 'SELECT ' . gives_up('patient')), 't', '... sooner than by its library');
comes_to($node, 'a server may have more patience', 'SELECT ' . gives_up('patient'));
$node->safe_psql('postgres', q{SELECT spine_drop_pipeline('patient')});

send_lines($broker->{address}, 'events', 0, "k\t" . order_event() . "\n");
set_config($node, 'spine.brokers' => "$silent,$broker->{address}");
ok(wait_applied($node), 'another broker is found beside a silent one');
is($node->safe_psql('postgres', 'SELECT count(*) FROM events'), '1', 'its event is applied');

# /proc/net/tcp: the timer of a connection is 2 for a keepalive, and how long it has to run, in
# ticks of 1/100 s
grant_http_role($node);
set_config($node, listen_addresses => '127.0.0.1');
$node->restart;
my $port = $node->port;
my $http = start_http($node, "--dbname=host=127.0.0.1 port=$port dbname=postgres user=spine_http");
my $answer = HTTP::Tiny->new->get("$http->{url}/orders");
is($answer->{status}, 200, 'spine-http has a connection over TCP');
my @timers = map { /^\s*\d+: \S+ 0100007F:([0-9A-F]{4}) 01 \S+ (\d\d):([0-9A-F]+)/ && hex $1 == $port ? [ $2, hex $3 ] : () }
  split /\n/, slurp_file('/proc/net/tcp');
cmp_ok(scalar @timers, '>', 0, 'the connection is found');
is(scalar(grep { $_->[0] ne '02' || $_->[1] > 500 } @timers), 0, 'a keepalive is due within five seconds')
  or diag explain \@timers;
stop_http($http);

stop_broker($broker);
done_testing();
