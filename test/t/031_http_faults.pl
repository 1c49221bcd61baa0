# Faults around spine-http are reported, and pass.  A database that is away, hangs, is
# slow or does not have spine yet costs the requests that need it a 503, and affects
# nobody else.  No restart is needed when it is back.  Clients that send rubbish, send
# slowly or do not read hold nobody up.  spine-http ends when it is told to, after it has
# answered the requests that it has.
#
# Broken when
# - anything waits without a deadline for the database, or waits for a client;
# - a lost connection is not replaced, or an old answer survives it;
# - an answer goes to a request that is not its own;
# - SIGTERM loses a request or races with one;
# - a client can write lines of its own to the log;
# - memory is misused: SPINE_HTTP may name a build that detects it.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use POSIX ();
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_RCVBUF SOCK_STREAM TCP_MAXSEG TCP_NODELAY);
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $program = $ENV{SPINE_HTTP} // 'spine-http';
my $json = JSON::PP->new->utf8;
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $agent = HTTP::Tiny->new(timeout => 60, max_redirect => 0);
my $scratch = PostgreSQL::Test::Utils::tempdir();

$SIG{PIPE} = 'IGNORE';
local $SIG{ALRM} = sub { die "nothing happens any more\n" };

my $node = spine_node('main');
grant_http_role($node);
$node->safe_psql('postgres', q{SELECT spine_produce('acme', 2000), spine_produce('initech', 100)});
ok(wait_applied($node), 'events are applied');

sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

# Waits until the code returns something true, and returns that.
sub until_true
{
	my ($code) = @_;

	for (1 .. 50 * $timeout)
	{
		my $result = $code->();
		return $result if $result;
		usleep(20_000);
	}
	return;
}

sub ask
{
	my ($http, $target, %headers) = @_;

	return $agent->get($http->{url} . $target, { headers => \%headers });
}

# A connection of its own: { socket, buffer }.
sub connect_to
{
	my ($http) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $http->{port});

	return $socket && { socket => $socket, buffer => '' };
}

sub say_to
{
	my ($connection, $bytes) = @_;

	while (length $bytes)
	{
		my $sent = syswrite $connection->{socket}, $bytes;
		last unless $sent;
		substr($bytes, 0, $sent) = '';
	}
	return $connection;
}

sub get
{
	my ($target, @headers) = @_;

	return join "\r\n", "GET $target HTTP/1.1", 'Host: x', @headers, '', '';
}

# Waits until so many requests wait for a lock in the database.
sub wait_for_locked
{
	my ($n) = @_;

	ok($node->poll_query_until('postgres', qq{SELECT count(*) = $n FROM pg_stat_activity WHERE usename = 'spine_http' AND wait_event_type = 'Lock'}), "requests that wait for the lock: $n");
}

# The next answer: { status, head, content }, or undef when the connection is
# closed instead.
sub hear
{
	my ($connection, $method) = @_;

	alarm $timeout;
	for (;;)
	{
		my ($head, $rest) = split /\r\n\r\n/, $connection->{buffer}, 2;

		if (defined $rest)
		{
			my ($status) = $head =~ /\AHTTP\/1\.[01] (\d+)/;
			my $length = $head =~ /^Content-Length: (\d+)/mi ? $1 : 0;

			$length = 0 if ($method // '') eq 'HEAD' || ($status // 0) == 304;
			if (length $rest >= $length)
			{
				$connection->{buffer} = substr($rest, $length);
				alarm 0;
				return { status => $status // 0, head => $head, content => substr($rest, 0, $length) };
			}
		}
		next if sysread $connection->{socket}, $connection->{buffer}, 65536, length $connection->{buffer};
		alarm 0;
		return undef;
	}
}

# Is there something to hear, or the end?
sub can_hear
{
	my ($connection) = @_;

	return $connection->{buffer} ne '' || !!IO::Select->new($connection->{socket})->can_read(0);
}

# An answer that says that the database is away.
sub is_away
{
	my ($answer) = @_;
	my $error = eval { $json->decode($answer->{content}) };

	return $answer->{status} == 503 && ($answer->{headers}{'retry-after'} // '') =~ /^\d+$/
	  && $answer->{headers}{'content-type'} eq 'application/json' && ref $error eq 'HASH' && $error->{error};
}

# Ends spine-http, checks its exit code, and returns its log.
sub ends_well
{
	my ($http, $what) = @_;
	my $code = stop_http($http);
	my $log = slurp_file($http->{log});

	is($code, 0, "$what: exit code 0");
	unlike($log, qr/Sanitizer|runtime error/, "$what: no sanitizer has complained");
	return $log;
}

#
# Options
#
sub run_program
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $program, @arguments ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($timeout));
	return ($? >> 8, $out, $err);
}

foreach my $option ('--help', '-h')
{
	my ($code, $out, $err) = run_program($option);

	is("$code $err", '0 ', $option);
	like($out, qr/--$_\b/, "$option tells of --$_") foreach qw(dbname listen port threads timeout memory log-format log-file version help);
}
foreach my $option ('--version', '-V')
{
	my ($code, $out, $err) = run_program($option);

	is("$code $err", '0 ', $option);
	like($out, qr/^spine-http .*\d+\.\d+/, "$option tells the version");
}
foreach (
	['--nonsense'], ['-x'], ['--port=abc'], ['--port=65536'], ['--port=-1'], ['--port='], ['--port=80x'], ['-p', '1e3'], ['--port=99999999999999999999'],
	['--log-format=xml'], ['--log-format='], ['--threads=0'], ['--threads=65'], ['--threads=two'], ['--timeout=0'], ['--timeout=1.5'],
	['--timeout=99999999'], ['--memory=0'], ['--memory=99999999'], ['--memory=much'], ['argument'], ['--port=0', 'postgres'], ['--dbname'], ['-d'], ["--log-file=$scratch/not/there"], ["--log-file=$scratch"])
{
	my ($code, $out, $err) = run_program(@$_);

	is("$code $out", '2 ', "exit code 2: @$_");
	like($err, qr/^spine-http: .+\n.*--help/, "says why: @$_");
	my ($culprit) = ($_->[-1] =~ s/^--port=(?=.)|^--log-format=(?=.)|^--[tm]\w+=//r);
	like($err, qr/\Q$culprit\E/, "names it: $culprit") unless $culprit =~ /=/;
}

my $http = start_http($node);
foreach ([ "--port=$http->{port}", qr/cannot listen on 127\.0\.0\.1 port $http->{port}: Address already in use/ ], [ '--listen=192.0.2.1', qr/cannot listen on 192\.0\.2\.1 port 0: ./ ])
{
	my ($option, $reason) = @$_;
	my ($code, $out, $err) = run_program('--port=0', $option);

	is($code, 1, "exit code 1: $option");
	like($err, $reason, "says why: $option");
}

#
# Connections
#
is(ask($http, '/orders')->{status}, 200, 'orders are served');

# requests in one write are answered in order, whether from the database or not
my $connection = connect_to($http);
my @asked = map { ([ "/orders?limit=$_", 200, $_ ], [ '/healthz', 200, undef ], [ "/orders?limit=0", 400, undef ], [ "/nothing/$_", 404, undef ]) } 1 .. 20;
say_to($connection, join '', map { get($_->[0]) } @asked);
my @answers = map { hear($connection) } @asked;
is_deeply([ map { $_->{status} } @answers ], [ map { $_->[1] } @asked ], 'pipelined requests are answered in order');
is_deeply([ map { ref eq 'ARRAY' ? scalar @$_ : undef } map { $json->decode($_->{content}) } @answers ], [ map { $_->[2] } @asked ], 'each pipelined request has its own answer');
say_to($connection, "HEAD /orders HTTP/1.1\r\nHost: x\r\n\r\n" . get('/healthz'));
cmp_ok(hear($connection, 'HEAD')->{head} =~ /^Content-Length: (\d+)/m && $1, '>', 1000, 'HEAD on the same connection');
is(hear($connection)->{content}, '{"status":"ok"}', 'what follows the answer to HEAD is not taken for its body');

setsockopt $connection->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
foreach (1 .. 2)
{
	syswrite $connection->{socket}, $_ foreach split //, get('/orders?limit=3&tenant=acme');
	is(scalar @{ $json->decode(hear($connection)->{content}) }, 3, 'a request that is sent byte by byte');
}
say_to($connection, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
like(hear($connection)->{head}, qr/^Connection: close\r?$/mi, 'Connection: close');
is(hear($connection), undef, 'Connection: close closes the connection');
$connection = say_to(connect_to($http), "GET /orders?limit=1 HTTP/1.0\r\n\r\n");
is(hear($connection)->{status}, 200, 'HTTP/1.0');
is(hear($connection), undef, 'HTTP/1.0 closes the connection');
$connection = connect_to($http);
foreach (1 .. 2)
{
	say_to($connection, "GET /orders?limit=1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
	is(hear($connection)->{status}, 200, 'HTTP/1.0 with keep-alive');
}

# rubbish
srand 1;
foreach (
	[ 'random bytes', join '', map { chr int rand 256 } 1 .. 5000 ], [ 'TLS', "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . "\0" x 500 . "\r\n\r\n" ],
	[ 'zeros', "\0" x 100_000 ], [ 'a long line', 'x' x 1_000_000 ], [ 'line breaks', "\r\n" x 1000, 1 ], [ 'no method', " / HTTP/1.1\r\n\r\n" ],
	[ 'no target', "GET  HTTP/1.1\r\n\r\n" ], [ 'no version', "GET /\r\n\r\n" ], [ 'a wrong version', "GET / HTTP/9.9\r\n\r\n" ], [ 'a long method', 'G' x 5000 . " / HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a header without a colon', "GET /healthz HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n" ], [ 'a header that begins with a space', "GET /healthz HTTP/1.1\r\n x\r\nHost: x\r\n\r\n", 1 ],
	[ 'a negative length', "GET /orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" ], [ 'a length of no number', "GET /orders HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n" ],
	[ 'a huge length', "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n" ],
	[ 'broken chunks', "POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" ], [ 'half a request', "GET /orders HTTP/1.1\r\nHo", 1 ],
	[ 'an Expect', "POST /orders HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n" ])
{
	my ($what, $bytes, $waits) = @$_;
	my $rubbish = say_to(connect_to($http), $bytes);
	my $answer = $waits ? undef : hear($rubbish);

	like($answer ? $answer->{status} : 'closed', qr/^(?:[45]\d\d|closed)$/, "$what: spine-http refuses, or waits for more");
	is(ask($http, '/healthz')->{status}, 200, "$what: others are answered");
}

# A connection that accepts little data until it is read from.
sub connect_narrow
{
	my ($of) = @_;
	my $socket;

	socket($socket, Socket::PF_INET, SOCK_STREAM, 0) or die $!;
	setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 4096;
	connect($socket, Socket::pack_sockaddr_in($of->{port}, Socket::inet_aton('127.0.0.1'))) or die $!;
	return { socket => $socket, buffer => '' };
}

# clients that wait
my @halves = map { say_to(connect_to($http), "GET /orders?limit=2 HTTP/1.1\r\nHo") } 1 .. 50;
my @deaf = map { say_to(connect_narrow($http), get('/orders?limit=1000') x 20) } 1 .. 50;
is_deeply([ map { ask($http, $_)->{status} } ('/orders?limit=1000', '/healthz', '/stats', '/', '/metrics', '/readyz') x 5 ], [ (200) x 30 ],
	'50 clients that sent half a request and 50 that do not read hold nobody up');
say_to($_, "st: x\r\n\r\n") foreach @halves;
is_deeply([ map { hear($_)->{status} } @halves ], [ (200) x 50 ], 'half a request is answered once it is complete');
is_deeply([ map { my $c = $_; map { length hear($c)->{content} > 100_000 ? 1 : 0 } 1 .. 20 } @deaf[ 0 .. 4 ] ], [ (1) x 100 ], 'clients that did not read have their answers when they do');
undef @deaf;
undef @halves;

# many connections, from several processes because each may have only so many descriptors
SKIP:
{
	my $limit = `sh -c 'ulimit -H -n'`;
	skip "only $limit open files are allowed", 2 if $limit =~ /^\d+$/ && $limit < 1200;
	my @children;

	foreach (1 .. 4)
	{
		pipe(my $from_child, my $to_parent) or die $!;
		pipe(my $from_parent, my $to_child) or die $!;
		my $pid = fork // die $!;
		if ($pid == 0)
		{
			eval {
				close $_->{to} foreach @children, { to => $to_child };
				my @open = map { connect_to($http) // die "cannot connect: $!\n" } 1 .. 250;
				foreach my $round (1 .. 2)
				{
					say_to($open[$_], get('/orders?limit=' . (1 + $_ % 10))) foreach 0 .. $#open;
					foreach (0 .. $#open)
					{
						my $answer = hear($open[$_]) // die "closed\n";
						die "$answer->{status}\n" if $answer->{status} != 200;
						die "another request's answer\n" if @{ $json->decode($answer->{content}) } != 1 + $_ % 10;
					}
					syswrite $to_parent, "answered\n";
					sysread $from_parent, my $go, 1 if $round == 1;
				}
			};
			syswrite $to_parent, "failed: $@" if $@;
			POSIX::_exit(0);
		}
		close $to_parent;
		close $from_parent;
		push @children, { pid => $pid, from => $from_child, to => $to_child };
	}
	alarm 2 * $timeout;
	foreach my $round (1 .. 2)
	{
		is_deeply([ map { scalar readline $_->{from} } @children ], [ ("answered\n") x 4 ], "1000 keep-alive connections are answered, round $round");
		close $_->{to} foreach $round == 1 ? @children : ();
	}
	waitpid $_->{pid}, 0 foreach @children;
	alarm 0;
}
is(ask($http, '/orders')->{status}, 200, 'after 1000 connections spine-http still answers');

#
# Memory
#

# Checks the most memory that the process has had.  A build with a sanitizer takes more,
# and is not checked.
my $pod_mb = 64;		# k8s/overlays/phase-1-ingest/postgres.yaml

sub peak_fits
{
	my ($of, $what) = @_;
	my ($peak_kb) = slurp_file("/proc/$of->{process}{KIDS}[0]{PID}/status") =~ /^VmHWM:\s+(\d+) kB/m;

	note "$what: $peak_kb kB";
	cmp_ok($peak_kb, '<', 1024 * $pod_mb, "$what: the memory of the pod is enough") unless $ENV{SPINE_HTTP};
	return;
}

# A connection as over a network.  On loopback the kernel takes whole answers at once.
sub connect_distant
{
	my ($of) = @_;
	my $socket;

	socket($socket, Socket::PF_INET, SOCK_STREAM, 0) or die $!;
	setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 4096;
	setsockopt $socket, IPPROTO_TCP, TCP_MAXSEG, 536;
	connect($socket, Socket::pack_sockaddr_in($of->{port}, Socket::inet_aton('127.0.0.1'))) or die $!;
	return { socket => $socket, buffer => '' };
}

# Many clients that ask and do not read: first all for the same, while nothing is written,
# then each for something else.
query(q{INSERT INTO current_orders SELECT 'many', 'an order with a name of some length ' || i, 'order_placed', 1, 'USD', now() FROM generate_series(1, 1000) i});
my $wide = start_http($node);
foreach (
	[ 'the same', sub { '/orders?tenant=many&limit=1000' } ],
	[ 'something else each', sub { '/orders?tenant=many&limit=' . (501 + $_[0]) } ])
{
	my ($what, $target) = @$_;
	my @deaf = map { say_to(connect_distant($wide), get($target->($_))) } 0 .. 499;

	ok(until_true(sub { !grep { !can_hear($_) } @deaf }), "500 clients that do not read ask for $what: they are answered");
	is_deeply([ map { ask($wide, $_)->{status} } '/healthz', '/', '/readyz' ], [ (200) x 3 ], "500 clients that do not read ask for $what: others are answered");
	ok(until_true(sub { ask($wide, '/orders?limit=1000')->{status} == 200 }), "500 clients that do not read ask for $what: in the end a long answer fits too");
	my %count;
	foreach (@deaf[ 0 .. 19, 480 .. 499 ])
	{
		my $answer = hear($_);
		my $rows = $answer && $answer->{status} == 200 ? eval { scalar @{ $json->decode($answer->{content}) } } : undef;

		$count{ !$answer ? 'cut' : defined $rows && $rows > 500 ? 'whole' : is_away({ %$answer, headers => { 'retry-after' => $answer->{head} =~ /^Retry-After: (\d+)/mi, 'content-type' => 'application/json' } }) ? 'later' : 'wrong' }++;
	}
	note join ', ', map { "$count{$_} $_" } sort keys %count;
	is($count{wrong}, undef, "500 clients that ask for $what read: a whole answer, the advice to retry, or a closed connection");
	peak_fits($wide, "500 clients that ask for $what");
}

ends_well($wide, 'after clients that do not read');

# What clients send is bounded too: long lines, whole or half.
$wide = start_http($node);
SKIP:
{
	my $limit = `sh -c 'ulimit -H -n'`;
	skip "only $limit open files are allowed", 4 if $limit =~ /^\d+$/ && $limit < 2000;
	my @children;

	foreach my $how (0 .. 3)
	{
		pipe(my $from_child, my $to_parent) or die $!;
		pipe(my $from_parent, my $to_child) or die $!;
		my $pid = fork // die $!;
		if ($pid == 0)
		{
			close $_->{to} foreach @children, { to => $to_child };
			my $line = 'GET /orders?limit=1&tenant=' . 'x' x 15_000;
			my @open = map { connect_to($wide) // () } 1 .. 370;

			say_to($_, $how % 2 ? "$line HTTP/1.1\r\nHost: x\r\n\r\n" : $line) foreach @open;
			syswrite $to_parent, "sent\n";
			sysread $from_parent, my $go, 1;
			POSIX::_exit(0);
		}
		close $to_parent;
		close $from_parent;
		push @children, { pid => $pid, from => $from_child, to => $to_child };
	}
	alarm 2 * $timeout;
	is_deeply([ map { scalar readline $_->{from} } @children ], [ ("sent\n") x 4 ], '1,480 connections with long lines');
	alarm 0;
	is(ask($wide, '/healthz')->{status}, 200, 'long lines: others are answered');
	peak_fits($wide, 'long lines');
	# more connections than there is room for: slow ones make room
	my @more = map { connect_to($wide) } 1 .. 100;
	ok(until_true(sub { (eval { ask($wide, '/healthz')->{status} } // 0) == 200 }), 'too many connections: others are answered once slow ones are cut off');
	close $_->{to} foreach @children;
	waitpid $_->{pid}, 0 foreach @children;
}
ends_well($wide, 'after long lines');
query(q{DELETE FROM current_orders WHERE tenant = 'many'});

# An answer that is too long is not read from the database.
query(q{INSERT INTO current_orders SELECT 'huge', repeat('x', 10000) || i, 'order_placed', 1, 'USD', now() FROM generate_series(1, 1000) i});
my $little = start_http($node, '--memory=8');
my $too_long = ask($little, '/orders?limit=1000&tenant=huge');
is($too_long->{status}, 500, 'an answer that is too long: 500');
like($json->decode($too_long->{content})->{error}, qr/too long/, 'an answer that is too long: the error says so');
like(slurp_file($little->{log}), qr/orders: the answer is too long for --memory/, 'an answer that is too long: the log says so');
is(scalar @{ $json->decode(ask($little, '/orders?limit=100&tenant=huge')->{content}) }, 100, 'fewer orders are answered');
peak_fits($little, 'an answer that is too long');
ends_well($little, 'with little memory');
query(q{DELETE FROM current_orders WHERE tenant = 'huge'});

#
# The log
#
my $log_file = "$scratch/log";
sub start_with_log
{
	my (@options) = @_;
	my $output = "$scratch/output";
	my $process = IPC::Run::start([ $program, '--port=0', '--dbname=' . $node->connstr('postgres') . ' user=spine_http', "--log-file=$log_file", @options ],
		'<', \undef, '>', $output, '2>&1');
	my ($url, $port) = @{ until_true(sub { -e $log_file && slurp_file($log_file) =~ m{serving (http://[^ ]*:(\d+))/} ? [ $1, $2 ] : undef }) };

	return { url => $url, port => $port, log => $output, process => $process };
}

sub lines_of
{
	my ($file) = @_;

	return -e $file ? split /\n/, slurp_file($file) : ();
}

# Requests that try to write lines of their own to the log: method and target.
my @hostile = (
	[ 'GET', '/plain?x=1' ], [ 'GET', '/"' ], [ 'GET', '/a"_200_1_0.000001' ], [ 'GET', '/a" 200 1 0.000001' ], [ 'GET', '/back\\' ], [ 'GET', '/back\\"' ], [ 'GET', "/\x1b[31m\x1b]0;title\x07" ],
	[ 'GET', "/\x0b\x0c\x08\x7f\x01\x1f" ], [ 'GET', "/\xff\xfe" ], [ 'GET', "/\xc3" ], [ 'GET', "/\xc3\xbc" ], [ 'GET', "/\xc2\x85\xe2\x80\xa8\xc2\x9b31m" ], [ 'GET', '/%0aforged%0d%0a' ],
	[ 'GET', '/%s%n%s%n%x' ], [ 'GET', '/' . 'x' x 10_000 ], [ 'GET', '/' . '"' x 5000 ], [ 'GET', '/' . "\xc3\xbc" x 3000 ], [ 'GET', '/' . "\x01" x 3000 ], [ 'GET', '/{"a":"b"}' ],
	[ "\x1b[31mX", '/' ], [ 'A"B', '/' ], [ "\xff\xfe", '/' ], [ 'M' x 100, '/' ]);

# The requests that libmicrohttpd lets through: all, or since 1.0 all that could be HTTP.
my @heard;

# Sends the hostile requests.  Returns the lines of the log about requests, and the
# library's own lines.
sub hostile_lines
{
	my ($logging) = @_;
	my $library = qr/Error processing request/;
	my @refused;

	@heard = ();
	foreach (@hostile)
	{
		my $client = say_to(connect_to($logging), "$_->[0] $_->[1] HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
		my $answer = hear($client) // { status => 0, head => '' };

		if ($answer->{status} == ($_->[0] eq 'GET' ? 404 : 405)) { push @heard, $_ }
		elsif ($answer->{status} =~ /^(?:301|400)$/ && $answer->{head} !~ /json/) { push @refused, $_ }
	}
	is(@heard + @refused, @hostile, 'hostile requests are answered');
	is_deeply([ map { substr("@$_", 0, 60) } grep { "@$_" =~ /\A[A-Z]+ (?:[!-\$&-~]|%[0-9a-f]{2})+\z/ } @refused ], [], 'the library refuses nothing that could be HTTP');
	ask($logging, '/last');
	until_true(sub { grep { m{/last} } lines_of($log_file) });

	my @lines = grep { !/serving http/ } lines_of($log_file);
	return ([ grep { $_ !~ $library } @lines ], [ grep { $_ =~ $library } @lines ]);
}

my $logging = start_with_log('--log-format=json');
my ($lines, $refusals) = hostile_lines($logging);
is_deeply([ grep { !eval { $json->decode($_) } } @$lines, @$refusals ], [], 'JSON log: every line is JSON');
my @lines = map { eval { $json->decode($_) } // $_ } @$lines;
is_deeply([ map { ref ? join ' ', sort keys %$_ : $_ } @lines ], [ ('bytes client method seconds status target time') x (@heard + 1) ], 'JSON log: every line tells of one request');
is_deeply([ map { ref ? $_->{status} : $_ } @lines ], [ (map { $_->[0] eq 'GET' ? 404 : 405 } @heard), 404 ], 'JSON log: the status is right');
is($lines[0]{target}, '/plain?x=1', 'JSON log: the target is right');
is_deeply([ map { ref ? ($_->{target} . $_->{method}) =~ /([\x00-\x1f\x7f])/ : () } @lines ], [], 'JSON log: no control characters');
is(stop_http($logging), 0, 'JSON log: exit code 0');
is(ref(eval { $json->decode((lines_of($log_file))[-1]) }), 'HASH', 'JSON log: the last line is JSON too');
unlink $log_file;

$logging = start_with_log();
($lines, $refusals) = hostile_lines($logging);
@lines = @$lines;
is(scalar @lines, @heard + 1, 'text log: one line for each request');
is_deeply([ grep { !/^\S+Z 127\.0\.0\.1 "(?:[^"\\]|\\.)*" 40[45] \d+ \d+\.\d+$/ } @lines ], [], 'text log: quotes are escaped');
is_deeply([ grep { /[\x00-\x1f\x7f]/ } @lines, @$refusals ], [], 'text log: no control characters');

# log rotation
my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE usename = 'spine_http' AND pid NOT IN (%s)};
my $others = query(sprintf $pids, 0) =~ s/ /, /gr;
ask($logging, '/orders');
my $session = query(sprintf $pids, $others || 0);
like($session, qr/^\d+$/, 'spine-http has a session');
rename $log_file, "$log_file.1";
$logging->{process}->signal('HUP');
ok(until_true(sub { grep { /reopened/ } lines_of($log_file) }), 'SIGHUP: a new log file is opened');
ask($logging, '/after');
ok(until_true(sub { grep { m{/after} } lines_of($log_file) }), 'SIGHUP: the new log file is written to');
ok(!(grep { m{/after} } lines_of("$log_file.1")), 'SIGHUP: the old log file is no longer written to');
ok(until_true(sub { ask($logging, '/orders')->{status} == 200 && index(query(sprintf $pids, $others || 0) // '', $session) < 0 }), 'SIGHUP: the session is a new one');
rename $log_file, "$log_file.2";
mkdir $log_file;
$logging->{process}->signal('HUP');
ok(until_true(sub { grep { /cannot open .*: ./ } lines_of("$log_file.2") }), 'a log file that cannot be opened: the old one says so');
is(ask($logging, '/orders')->{status}, 200, 'a log file that cannot be opened: spine-http continues');
rmdir $log_file;

# a notice that the server sends with its answer
my $stats = query(q{SELECT pg_get_functiondef('spine_stats_summary'::regproc)});
query(<<'SQL');
CREATE OR REPLACE FUNCTION spine_stats_summary(
	of_tenant text DEFAULT NULL, name_prefix text DEFAULT NULL, max_tenants integer DEFAULT 100)
RETURNS TABLE (tenant text, currency text, orders bigint, revenue_cents numeric, by_status jsonb, tenants bigint)
LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE WARNING 'mind the gap'; END $$;
SQL
is(ask($logging, '/stats')->{content}, '[]', 'an answer that comes with a warning');
ok((grep { /^\S+Z spine-http: .*WARNING: +mind the gap$/ } lines_of("$log_file.2")), 'the warning is a line of the log');
is(slurp_file($logging->{log}), '', 'the warning is nowhere else');
query($stats);
ends_well($logging, 'with a log file');

#
# The database is away, and back
#
# Child processes that ask for everything until they are told to stop, and report answers
# that are not allowed.
my @may_be = (
	[ '/', sub { $_[0]{status} =~ /^(?:200|304)$/ } ], [ '/healthz', sub { $_[0]{status} == 200 } ],
	[ '/metrics', sub { $_[0]{status} == 200 && $_[0]{content} =~ /^spine_database_up [01]$/m } ],
	[ '/orders', sub { $_[0]{status} =~ /^(?:200|304)$/ || is_away($_[0]) } ], [ '/stats', sub { $_[0]{status} =~ /^(?:200|304)$/ || is_away($_[0]) } ],
	[ '/readyz', sub { $_[0]{status} == 200 || $_[0]{status} == 503 && $_[0]{headers}{'retry-after'} && ref eval { $json->decode($_[0]{content}) } eq 'HASH' } ]);

sub start_load
{
	my ($of, $n) = @_;
	my @children;

	foreach my $number (1 .. $n)
	{
		pipe(my $from_child, my $to_parent) or die $!;
		pipe(my $from_parent, my $to_child) or die $!;
		my $pid = fork // die $!;
		if ($pid == 0)
		{
			close $_->{stop} foreach @children;
			close $to_child;
			my $stopped = IO::Select->new($from_parent);
			my $mine = HTTP::Tiny->new(timeout => 30, max_redirect => 0);
			my ($tags, %count, @wrong) = ({});

			until ($stopped->can_read(0))
			{
				foreach (@may_be)
				{
					my ($target, $may_be) = @$_;
					my $answer = $mine->get($of->{url} . $target, { headers => $tags->{$target} && $number % 2 ? { 'If-None-Match' => $tags->{$target} } : {} });

					$count{ $answer->{status} }++;
					$tags->{$target} = $answer->{headers}{etag} // $tags->{$target};
					push @wrong, "$target: $answer->{status} " . ($answer->{content} // '') unless $may_be->($answer) || @wrong > 10;
				}
				# the first round is over
				syswrite $to_parent, "going\n" unless $count{going}++;
			}
			syswrite $to_parent, $json->encode({ count => \%count, wrong => \@wrong }) . "\n";
			POSIX::_exit(0);
		}
		close $to_parent;
		close $from_parent;
		push @children, { pid => $pid, from => $from_child, stop => $to_child };
	}
	alarm $timeout;
	readline $_->{from} foreach @children;
	alarm 0;
	return @children;
}

sub stop_load
{
	my ($what, @children) = @_;
	my ($count, @wrong) = ({});

	alarm $timeout;
	close $_->{stop} foreach @children;
	foreach (@children)
	{
		my $report = $json->decode(scalar readline $_->{from});

		waitpid $_->{pid}, 0;
		$count->{$_} += $report->{count}{$_} foreach keys %{ $report->{count} };
		push @wrong, @{ $report->{wrong} };
	}
	alarm 0;
	is_deeply(\@wrong, [], "$what: every answer is 200, 304 or 503");
	cmp_ok($count->{503} // 0, '>', 0, sprintf '%s: some answers are 503 (%s)', $what, join ', ', map { "$count->{$_} x $_" } sort grep { /\d/ } keys %$count);
	return;
}

sub says_away
{
	my ($of, $what) = @_;

	ok(until_true(sub { is_away(ask($of, '/orders')) }), "$what: /orders is 503, with Retry-After and a reason");
	ok(is_away(ask($of, $_)), "$what: $_ is 503 too") foreach '/stats', '/readyz';
	is(ask($of, $_)->{status}, 200, "$what: $_ is served") foreach '/', '/healthz';
	my $metrics = ask($of, '/metrics');
	is($metrics->{status}, 200, "$what: /metrics is served");
	like($metrics->{content}, qr/^spine_database_up 0$/m, "$what: /metrics says that the database is away");
	like($metrics->{content}, qr/^spine_http_requests_total\{endpoint="\/orders",status="503"\} \d+$/m, "$what: /metrics counts the answers");
	return;
}

sub says_back
{
	my ($of, $what) = @_;

	ok(until_true(sub { ask($of, '/orders')->{status} == 200 }), "$what: /orders is 200 again");
	ok(until_true(sub { ask($of, '/readyz')->{status} == 200 }), "$what: /readyz is 200 again");
	# each thread has its own session; the first one to connect again tells the others
	is_deeply([ map { ask($of, '/stats')->{status} } 1 .. 20 ], [ (200) x 20 ], "$what: all threads are back at once");
	like(ask($of, '/metrics')->{content}, qr/^spine_database_up 1$/m, "$what: /metrics says that the database is up");
	return;
}

my $tag = ask($http, '/orders')->{headers}{etag};
my @load = start_load($http, 4);
$node->stop('immediate');
says_away($http, 'stopped');
$node->start;
says_back($http, 'started');
stop_load('stopped and started', @load);
is(ask($http, '/orders', 'If-None-Match' => $tag)->{status}, 304, 'the same answer has the same tag after a restart of the database');
@load = start_load($http, 2);
$node->restart;
says_back($http, 'restarted');
close $_->{stop} foreach @load;
is_deeply([ map { @{ $json->decode(scalar readline $_->{from})->{wrong} } } @load ], [], 'restarted: nobody noticed more than a 503');
waitpid $_->{pid}, 0 foreach @load;
my $log = ends_well($http, 'after restarts of the database');
like($log, qr/database away: .*\n(?:.*\n)*.*database is back/, 'the log says when it was away');
cmp_ok(scalar(() = $log =~ /database away/g), '<', 50, 'the log does not say so for every request');

# A server that is up but does not answer.
$http = start_http($node, '--threads=2');
is(ask($http, '/orders')->{status}, 200, 'another spine-http answers');
@load = start_load($http, 3);
freeze_node($node);
my @waiting = map { say_to(connect_to($http), get('/orders')) } 1 .. 4;
my $lively = connect_to($http);
is_deeply([ map { say_to($lively, get($_)); hear($lively)->{status} } ('/healthz', '/') x 20 ], [ (200) x 40 ], 'a server that hangs: requests that do not need it are answered');
ok(!(grep { can_hear($_) } @waiting), 'a server that hangs: the others wait');
is_deeply([ map { hear($_)->{status} } @waiting ], [ (503) x 4 ], 'a server that hangs: the others get a 503 after a while');
says_away($http, 'hanging');
thaw_node();
says_back($http, 'no longer hanging');
stop_load('hanging and back', @load);

# A statement that takes too long.
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE current_orders');
# an answer that spine-http has not kept
my $slow = ask($http, '/orders?limit=77');
ok(is_away($slow), 'a slow statement: 503') or diag "$slow->{status} $slow->{content}";
is(ask($http, $_)->{status}, 200, "a slow statement: $_ is served") foreach '/stats', '/metrics', '/healthz';
like(slurp_file($http->{log}), qr/orders: ERROR:  canceling statement due to statement timeout/, 'a slow statement: the server itself has ended it');
$blocker->query_safe('COMMIT');
$blocker->quit;
is(ask($http, "/orders?limit=$_")->{status}, 200, 'after the slow statement, /orders is served again') foreach 77 .. 80;
ends_well($http, 'after the slow statement');

# More requests than may wait: the rest is refused at once, and those that wait get their
# turn.
my $crowded = start_http($node, '--timeout=60', '--threads=1');
$blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE current_orders');
my $busy = say_to(connect_to($crowded), get('/orders'));
wait_for_locked(1);
my @crowd;
foreach (1 .. 2)			# each process has as many descriptors as a usual limit allows
{
	my $pid = open(my $from_child, '-|') // die $!;
	if ($pid == 0)
	{
		my @open = map { say_to(connect_to($crowded), get('/orders?limit=1')) } 1 .. 700;
		print map { my $answer = hear($_); ($answer ? "$answer->{status} $answer->{content}" : 'closed') . "\n" } @open;
		close STDOUT;
		POSIX::_exit(0);
	}
	push @crowd, $from_child;
}
ok(until_true(sub { 1400 - 1024 == grep { m{"GET /orders.* 503 } } lines_of($crowded->{log}) }), 'one request is with the database, 1024 wait, and the others are refused at once');
$blocker->query_safe('COMMIT');
$blocker->quit;
alarm $timeout;
my @said = map { readline $_ } @crowd;
alarm 0;
is(hear($busy)->{status}, 200, 'the request with the database is answered');
is(scalar(grep { /^503 .*too many requests are waiting/ } @said), 1400 - 1024, 'refused requests are told why');
is(scalar(grep { /^200 \[/ } @said), 1024, 'all requests that waited are answered');
ends_well($crowded, 'crowded');

# Requests that wait and ask the same share one answer, which is made after they came.
query(q{ALTER ROLE spine_http SET track_functions = 'all'});
my $sharing = start_http($node, '--timeout=60', '--threads=1',
	'--dbname=' . $node->connstr('postgres') . ' user=spine_http application_name=sharing');
$blocker = $node->background_psql('postgres');
my $remembered = ask($sharing, '/orders?limit=2');
my ($known) = $remembered->{headers}{etag};
$blocker->query_safe('BEGIN; LOCK TABLE current_orders');
my $ahead = say_to(connect_to($sharing), get('/orders?limit=1'));
wait_for_locked(1);
my @alike = map { say_to(connect_to($sharing), get('/orders?limit=2', "If-None-Match: $known")) } 1 .. 12;
my $other = say_to(connect_to($sharing), get('/orders?limit=3'));
my @never_remembered = map { say_to(connect_to($sharing), get('/metrics')) } 1 .. 12;
is(ask($sharing, '/healthz')->{status}, 200, 'while many requests ask the same, others are answered');
$blocker->query_safe(q{UPDATE current_orders SET amount_cents = amount_cents + 1; COMMIT});
$blocker->quit;
hear($ahead);
my @shared = map { hear($_)->{content} } @alike;
my $now = ask($sharing, '/orders?limit=2')->{content};
is(scalar @{ $json->decode($now) }, 2, 'the shared answer has two orders');
isnt($now, $remembered->{content}, 'the orders have changed meanwhile');
is_deeply(\@shared, [ ($now) x 12 ], 'the shared answer has the orders after the change');
is(scalar @{ $json->decode(hear($other)->{content}) }, 3, 'a request for three orders gets three');
is_deeply([ map { hear($_)->{status} } @never_remembered ], [ (200) x 12 ], 'all requests for /metrics are answered');
ends_well($sharing, 'sharing');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'sharing'}), 'the sessions have ended, and reported their statistics');
my $calls = query(q{SELECT sum(calls) FROM pg_stat_user_functions WHERE funcname = 'spine_metrics_text'});
cmp_ok($calls, '>', 0, 'the database was asked for /metrics');
cmp_ok($calls, '<', 12, 'the database was asked less often than clients asked');
query('ALTER ROLE spine_http RESET track_functions');

# A mistake in the set-up is not reported as a database that is away.
$http = start_http($node, '--timeout=60', '--threads=2');
query('REVOKE SELECT ON current_orders FROM spine_http');
is(ask($http, '/orders')->{status}, 500, 'a privilege is missing: 500');
like(slurp_file($http->{log}), qr/orders: ERROR:  permission denied for table current_orders/, 'a privilege is missing: the log says which');
query('GRANT SELECT ON current_orders TO spine_http');
is(ask($http, '/orders')->{status}, 200, 'the privilege is granted: 200');

# Sessions that are terminated are replaced, and no client notices.
query(q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'spine_http'});
is_deeply([ map { ask($http, '/orders')->{status} } 1 .. 4 ], [ (200) x 4 ], 'terminated sessions: 200');
ends_well($http, 'after terminated sessions');

#
# Started before the database, or before the extension
#
$node->stop;
$http = start_http($node);
says_away($http, 'started before the database');
$node->start;
says_back($http, 'the database is there now');
ends_well($http, 'started before the database');

query('CREATE DATABASE later');
$http = start_http($node, '--dbname=' . $node->connstr('later') . ' user=spine_http');
says_away($http, 'started before CREATE EXTENSION');
like(slurp_file($http->{log}), qr/database away: the extension spine is not in this database/, 'the log says why');
query('CREATE EXTENSION spine', 'later');
grant_http_role($node, 'later');
says_back($http, 'the extension is there now');
query('DROP EXTENSION spine', 'later');
ok(until_true(sub { is_away(ask($http, '/orders')) }), 'DROP EXTENSION: 503');
query('CREATE SCHEMA elsewhere; CREATE EXTENSION spine SCHEMA elsewhere', 'later');
grant_http_role($node, 'later', 'elsewhere');
says_back($http, 'CREATE EXTENSION in another schema');
# dropped and created again between two requests
query('SELECT spine_wait()');
ask($http, '/orders') for 1 .. 10;
query(q{BEGIN; DROP EXTENSION spine; CREATE EXTENSION spine SCHEMA elsewhere; COMMIT}, 'later');
grant_http_role($node, 'later', 'elsewhere');
is_deeply([ map { my $target = $_; map { ask($http, $target)->{status} } 1 .. 5 } '/orders', '/stats', '/metrics', '/readyz' ], [ (200) x 20 ], 'the extension is created again between two requests: nobody notices');
ends_well($http, 'without the extension');

#
# The end
#
$http = start_http($node, '--timeout=60');
$blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE current_orders');
my @open = map { say_to(connect_to($http), get("/orders?limit=$_")) } 1 .. 3;
my $idle = say_to(connect_to($http), get('/healthz'));
is(hear($idle)->{status}, 200, 'an idle connection was answered');
my $half = say_to(connect_to($http), "GET /orders HTTP/1.1\r\nHo");
wait_for_locked(3);
$http->{process}->signal('TERM');
ok( until_true(sub { !connect_to($http) }), 'SIGTERM: no new connections');
ok($http->{process}->pumpable, 'SIGTERM: spine-http waits for open requests');
ok(!(grep { can_hear($_) } @open), 'SIGTERM: open requests are not answered yet');
$blocker->query_safe('COMMIT');
my @last = map { hear($_) } @open;
is_deeply([ map { $_->{status} } @last ], [ (200) x 3 ], 'SIGTERM: open requests are answered');
is_deeply([ map { scalar @{ $json->decode($_->{content}) } } @last ], [ 1, 2, 3 ], 'SIGTERM: open requests get their own answers');
like($_->{head}, qr/^Connection: close\r?$/mi, 'SIGTERM: the answers say that the connection will be closed') foreach @last;
is(hear($_), undef, 'SIGTERM: the connection is closed') foreach @open, $idle, $half;
$blocker->quit;
ends_well($http, 'with open requests');

# An answer that is being sent is sent to its end.  It has a megabyte, because the kernel
# takes a smaller one at once.
query(q{INSERT INTO current_orders SELECT 'long', repeat('x', 1000) || i, 'order_placed', 1, 'USD', now() FROM generate_series(1, 1000) i});
$http = start_http($node);
my $slow_reader = say_to(connect_distant($http), get("/orders?limit=1000&tenant=long"));
ok(until_true(sub { can_hear($slow_reader) }), 'an answer is being sent');
ok(!(grep { m{"GET /orders} } lines_of($http->{log})), 'the answer is not sent completely');
$http->{process}->signal('TERM');
ok(until_true(sub { !connect_to($http) }), 'SIGTERM while an answer is sent: no new connections');
setsockopt $slow_reader->{socket}, SOL_SOCKET, SO_RCVBUF, 1024 * 1024;	# spine-http waits only so long
my $whole = hear($slow_reader);
is(scalar(() = $whole->{content} =~ /"order_id":/g), 1000, 'the answer is sent to its end');
ends_well($http, 'while an answer was sent');

# Requests of clients that have gone are logged, and take no negative time.
$http = start_http($node);
$blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE current_orders');
@open = map { say_to(connect_to($http), get("/orders?limit=$_")) } 1 .. 4;
wait_for_locked(4);
undef @open;
is(ask($http, '/healthz')->{status}, 200, 'clients have gone: others are answered');
$blocker->query_safe('COMMIT');
$blocker->quit;
ok( until_true(sub { 4 == grep { m{"GET /orders\?limit=} } lines_of($http->{log}) }), 'the requests of clients that have gone are in the log');
$log = ends_well($http, 'after clients have gone');
is_deeply([ grep { !m{"GET /orders\?limit=\d" (?:200|499|503) \d+ \d+\.\d+$} } grep { m{"GET /orders} } split /\n/, $log ], [], 'each has the time that it took');

# Requests that arrive together with the signal.
my @codes;
my $forbidden = 0;
foreach my $round (1 .. 10)
{
	$http = start_http($node, '--log-format=quiet');
	my @clients = map { connect_to($http) } 1 .. 30;
	my $asked = 0;

	ask($http, '/orders') for 1 .. 4;
	say_to($_, get('/orders?limit=1')) foreach @clients[ 0 .. 9 ];
	$http->{process}->signal($round % 2 ? 'TERM' : 'INT');
	foreach (@clients, @clients)
	{
		syswrite $_->{socket}, get('/orders?limit=1');
		usleep(50 * $round);
	}
	finish_quietly($http);
	push @codes, $http->{process}->full_result(0);
	$forbidden++ if slurp_file($http->{log}) =~ /Sanitizer|runtime error/;
	my @first = map { hear($_) } @clients[ 0 .. 9 ];
	is_deeply([ grep { $_ && $_->{status} !~ /^(?:200|503)$/ } @first ], [], "SIGTERM or SIGINT among requests, $round");
}
is_deeply([ @codes, $forbidden ], [ (0) x 11 ], 'among requests, spine-http ends with exit code 0 each time');

sub finish_quietly
{
	my ($of) = @_;

	alarm $timeout;
	IPC::Run::finish($of->{process});
	alarm 0;
	return;
}

$node->stop;
done_testing();
