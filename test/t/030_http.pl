# spine-http answers what it is asked: the orders and statistics that the database has
# at that moment, as JSON; counters that add up, in Prometheus' format; and for an
# improper request, a 4xx that says why.  spine-http needs no more than README's GRANTs,
# and cannot write.
#
# Broken when
# - an answer differs from the SQL function's, or is from an older state (a 304 too many);
# - a parameter reaches the database as anything other than a value;
# - a client can ask for more than it may see;
# - a counter is wrong, goes back, or has a series per tenant without bound;
# - the page's Content-Security-Policy does not fit the page;
# - any of this depends on the schema that spine is in or on the database's encoding.
use strict;
use warnings;
use utf8;
use Digest::SHA qw(sha256_base64);
use Encode qw(encode);
use FindBin;
use HTTP::Tiny;
use IO::Socket::INET;
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use IPC::Run ();
use JSON::PP ();
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my @orders_keys = qw(amount_cents currency order_id status tenant updated_at);
my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $agent = HTTP::Tiny->new(timeout => 60, max_redirect => 0);
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

my $node = spine_node('main', init => [ extra => [ '--encoding=UTF8', '--locale=C' ] ]);
my ($grants) = slurp_file("$FindBin::RealBin/../../README.md") =~ /^(CREATE ROLE spine_http LOGIN;\n.*?)^```/ms
  or die 'README has no GRANTs for spine_http';
$node->safe_psql('postgres', $grants);
my $http = start_http($node);
my @started = ($http);

sub query
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; $sql");
}

# A question and its answer: { status, headers, content }.
sub ask
{
	my ($target, %options) = @_;

	return $agent->request($options{method} // 'GET', ($options{of} // $http)->{url} . $target,
		{ headers => $options{headers} // {} });
}

# The answer as a Perl structure.
sub ask_json
{
	my ($target, %options) = @_;
	my $answer = ask($target, %options);

	return "status $answer->{status}: $answer->{content}"
	  unless $answer->{status} == ($options{status} // 200);
	return eval { $json->decode($answer->{content}) } // "no JSON: $answer->{content}";
}

# The JSON object that a text holds; an empty object if it holds none.
sub object
{
	my ($text) = @_;
	my $object = eval { $json->decode($text) };

	return ref $object eq 'HASH' ? $object : {};
}

# %-encodes all bytes of a text in UTF-8.
sub in_url
{
	my ($text) = @_;

	return join '', map { sprintf '%%%02x', ord } split //, encode('UTF-8', $text);
}

# Sends bytes, and returns so many answers, or fewer and then 'closed' if the connection
# is closed before.
sub converse
{
	my ($bytes, $answers) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $http->{port}) or die $!;
	my ($buffer, @got) = ('');

	local $SIG{ALRM} = sub { die "no answer in $timeout s" };
	local $SIG{PIPE} = 'IGNORE';
	alarm $timeout;
	syswrite $socket, $bytes;
	while (@got < $answers)
	{
		my ($head, $rest) = split /\r\n\r\n/, $buffer, 2;

		if (defined $rest)
		{
			my $length = $head =~ /^Content-Length: (\d+)/mi ? $1 : 0;

			if (length $rest >= $length)
			{
				my ($status) = $head =~ /\AHTTP\/1\.[01] (\d+)/;

				push @got, { status => $status // 0, head => $head, content => substr($rest, 0, $length) };
				$buffer = substr($rest, $length);
				next;
			}
		}
		next if sysread $socket, $buffer, 65536, length $buffer;
		push @got, 'closed';
		last;
	}
	alarm 0;
	return @got;
}

# Waits until the code returns something true, and returns that.
sub until_true
{
	my ($code) = @_;

	for (1 .. 20 * $timeout)
	{
		my $result = $code->();
		return $result if $result;
		usleep(50_000);
	}
	return;
}

# Reads Prometheus' text format strictly: { samples => { series => value },
# types => { family => type } }.  Dies where the text breaks the format.
sub parse_metrics
{
	my ($text) = @_;
	my (%samples, %types, %helped, %series_of, $family);

	die "no line break at the end\n" unless $text =~ /\n\z/;
	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^# HELP ([a-z_]+) \S.*$/)
		{
			die "HELP of $1 again\n" if $helped{$1}++;
			$family = $1;
			next;
		}
		if ($line =~ /^# TYPE ([a-z_]+) (counter|gauge|histogram)$/)
		{
			my ($name, $type) = ($1, $2);

			die "TYPE of $name without HELP\n" unless defined $family && $family eq $name;
			die "TYPE of $name again\n" if $types{$name};
			die "$name is a $type\n" if $type eq 'counter' xor $name =~ /_total$/;
			$types{$name} = $type;
			next;
		}
		die "no TYPE before $line\n" unless defined $family && $types{$family};
		my $label = qr/[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"/;
		$line =~ /^([a-z_]+)(?:\{($label(?:,$label)*)\})? (-?\d+(?:\.\d+)?(?:e[-+]\d+)?)$/
		  or die "not a sample: $line\n";
		my ($name, $labels, $value) = ($1, $2 // '', $3);
		my $of = $types{$family} eq 'histogram' ? qr/^\Q$family\E_(bucket|sum|count)$/ : qr/^\Q$family\E()$/;

		$name =~ $of or die "$name among those of $family\n";
		my $part = $1;
		my $series = $labels eq '' ? $name : "$name\{$labels\}";

		die "$series again\n" if exists $samples{$series};
		$samples{$series} = $value;
		die "negative: $line\n" if $types{$family} ne 'gauge' && $value < 0;
		if ($types{$family} eq 'histogram')
		{
			my $le = $labels =~ s/(?:^|,)le="([^"]*)"// ? $1 : undef;

			die "le: $line\n" if defined $le xor $part eq 'bucket';
			push @{ $series_of{$family}{$labels}{bucket} }, [ $le, $value ] if $part eq 'bucket';
			$series_of{$family}{$labels}{$part} = $value if $part ne 'bucket';
		}
	}
	foreach my $histogram (map { values %$_ } values %series_of)
	{
		my ($bound, $count) = (-1, 0);

		foreach (@{ $histogram->{bucket} })
		{
			my $le = $_->[0] eq '+Inf' ? 9**9**9 : $_->[0];

			die "buckets not in order at $le\n" unless $le > $bound;
			die "buckets not cumulative at $le\n" unless $_->[1] >= $count;
			($bound, $count) = ($le, $_->[1]);
		}
		die "+Inf is not _count\n" unless $bound == 9**9**9 && $count == $histogram->{count};
		die "no _sum\n" unless defined $histogram->{sum};
	}
	return { samples => \%samples, types => \%types };
}

sub metrics
{
	my (%options) = @_;
	my $answer = ask('/metrics', %options);

	die "/metrics: $answer->{status} $answer->{content}" unless $answer->{status} == 200;
	return parse_metrics($answer->{content});
}

# The sum over all series of a metric whose labels match.
sub sum_of
{
	my ($metrics, $name, $labels) = @_;
	my $sum = 0;

	foreach my $series (keys %{ $metrics->{samples} })
	{
		$sum += $metrics->{samples}{$series}
		  if $series =~ /^\Q$name\E(?:\{|$)/ && (!defined $labels || $series =~ /\Q$labels\E/);
	}
	return $sum;
}

#
# The orders are those of the database
#
query(q{SELECT spine_produce('acme', 2000), spine_produce('initech', 400), spine_produce('müller & söhne + co', 30)});
ok(wait_applied($node), 'events are applied');

my @types = (
	[ '/', 'text/html; charset=utf-8' ], [ '/orders', 'application/json' ], [ '/stats', 'application/json' ],
	[ '/metrics', 'text/plain; version=0.0.4; charset=utf-8' ],
	[ '/healthz', 'application/json' ], [ '/readyz', 'application/json' ]);
foreach (@types)
{
	my ($path, $type) = @$_;
	my $get = ask($path);
	my $head = ask($path, method => 'HEAD');

	is("$get->{status} $get->{headers}{'content-type'}", "200 $type", "GET $path");
	is($get->{headers}{'x-content-type-options'}, 'nosniff', "GET $path: nosniff");
	is($get->{headers}{'content-length'}, length $get->{content}, "GET $path: the length is right");
	isnt($get->{content}, '', "GET $path: the answer is not empty");
	is($head->{status} . ($head->{content} // ''), 200, "HEAD $path has no body");
	delete @{ $_->{headers} }{ 'date', $path eq '/metrics' ? 'content-length' : () } foreach $get, $head;
	is_deeply($head->{headers}, $get->{headers}, "HEAD $path has the same headers");
}

my $orders = ask_json('/orders');
is(scalar @$orders, 100, '/orders: 100 orders');
is_deeply([ grep { join(' ', sort keys %$_) ne "@orders_keys" } @$orders ], [], '/orders: each has the documented keys');
my @times = map { $_->{updated_at} } @$orders;
is_deeply(\@times, [ sort { $b cmp $a } @times ], '/orders: newest first');
is($times[0], query(q{SELECT to_json(max(updated_at)) #>> '{}' FROM current_orders}), '/orders: the first is the newest of all');
is(scalar @{ ask_json('/orders?limit=1') }, 1, 'limit=1');
is(scalar @{ ask_json('/orders?limit=1000') }, 1000, 'limit=1000');
is_deeply(ask_json('/healthz'), { status => 'ok' }, '/healthz');

foreach (
	[ '', 'NULL, NULL, 100' ], [ '?limit=1000', 'NULL, NULL, 1000' ],
	[ '?tenant=acme', q{'acme', NULL, 100} ], [ '?tenant=acme&limit=7', q{'acme', NULL, 7} ],
	[ '?status=order_paid', q{NULL, 'order_paid', 100} ],
	[ '?limit=1000&status=order_shipped&tenant=initech', q{'initech', 'order_shipped', 1000} ],
	[ '?tenant=&status=&limit=', 'NULL, NULL, 100' ], [ '?tenant&status', 'NULL, NULL, 100' ],
	[ '?tenant=&tenant=acme', q{'acme', NULL, 100} ],
	[ '?%74enant=%61cm%65&', q{'acme', NULL, 100} ],
	[ '?tenant=m%C3%BCller+%26+s%c3%b6hne+%2B%20co', q{'müller & söhne + co', NULL, 100} ],
	[ '?tenant=nobody', q{'nobody', NULL, 100} ], [ '?status=nothing', q{NULL, 'nothing', 100} ])
{
	my ($parameters, $arguments) = @$_;
	my $expected = query("SELECT coalesce(json_agg(o), '[]') FROM spine_orders($arguments) o");

	is_deeply(ask_json("/orders$parameters"), $json->decode($expected), "/orders$parameters is spine_orders($arguments)");
}
is(scalar @{ ask_json('/orders?tenant=m%C3%BCller+%26+s%C3%B6hne+%2B+co') }, query(q{SELECT count(*) FROM current_orders WHERE tenant LIKE 'm%'}),
	'a tenant in UTF-8 has its orders');
is_deeply([ grep { $_->{tenant} ne 'acme' || $_->{status} ne 'order_paid' } @{ ask_json('/orders?tenant=acme&status=order_paid') } ],
	[], 'both filters apply');

#
# The statistics
#
foreach ([ '', 'NULL', 'true' ], [ '?tenant=acme', q{'acme'}, q{tenant = 'acme'} ], [ '?tenant=nobody', q{'nobody'}, q{tenant = 'nobody'} ],
	[ '?prefix=a', q{NULL, 'a'}, q{starts_with(tenant, 'a')} ])
{
	my ($parameters, $arguments, $condition) = @$_;
	my $stats = ask_json("/stats$parameters");

	is_deeply($stats, $json->decode(query("SELECT coalesce(json_agg(s), '[]') FROM spine_stats_summary($arguments) s")),
		"/stats$parameters is spine_stats_summary($arguments)");
	is_deeply($stats, $json->decode(query(<<SQL)), "/stats$parameters agrees with current_orders");
SELECT coalesce(json_agg(g ORDER BY orders DESC, tenant, currency), '[]')
FROM (SELECT tenant, currency, sum(orders) AS orders,
			 coalesce(sum(amount_cents) FILTER (WHERE status <> 'order_cancelled'), 0) AS revenue_cents,
			 json_object_agg(status, json_build_object('orders', orders, 'amount_cents', amount_cents)) AS by_status,
			 1 AS tenants
	  FROM (SELECT tenant, currency, status, count(*) AS orders, sum(amount_cents) AS amount_cents
			FROM current_orders WHERE $condition GROUP BY 1, 2, 3) s
	  GROUP BY 1, 2) g
SQL
}
my $bounded = ask_json('/stats?limit=1');
is($bounded->[0]{tenant}, query('SELECT tenant FROM current_orders GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1'), '/stats?limit=1 has the largest tenant');
is($bounded->[-1]{tenants}, query('SELECT count(DISTINCT tenant) - 1 FROM current_orders'), '/stats?limit=1 counts the others');
my $sum = 0;
$sum += $_->{orders} foreach @$bounded;
is($sum, query('SELECT count(*) FROM current_orders'), '/stats?limit=1 adds up to all orders');
my ($acme) = @{ ask_json('/stats?tenant=acme') };
cmp_ok($acme->{by_status}{order_cancelled}{amount_cents}, '>', 0, 'some orders are cancelled');
my $uncancelled = 0;
$uncancelled += $acme->{by_status}{$_}{amount_cents} foreach grep { $_ ne 'order_cancelled' } keys %{ $acme->{by_status} };
is($acme->{revenue_cents}, $uncancelled, 'cancelled orders carry no revenue');

#
# An answer to a bad request says what is wrong
#
sub is_error
{
	my ($target, $parameter, $what) = @_;
	my $answer = ask($target);
	my $error = object($answer->{content});

	is("$answer->{status} $answer->{headers}{'content-type'}", '400 application/json', $what // "GET $target");
	is_deeply([ sort keys %$error ], [qw(error parameter)], "GET $target: the answer says why");
	is($error->{parameter}, $parameter, "GET $target: the answer names the parameter");
	return;
}

is_error("/orders?limit=$_", 'limit')
  foreach qw(0 1001 -1 abc 1e3 99999999999999999999 18446744073709551617 +1 %2B1 %201 1%20 0x10 1.0 1%00 1;2 %D9%A1);
is_error('/orders?limit=1&limit=1', 'limit');
is_error('/orders?tenant=a&limit=5&tenant=b', 'tenant');
is_error("/orders?$_=x", $_) foreach qw(nonsense Tenant offset);
is_error('/orders?nonsense', 'nonsense');
is_error('/orders?=x', '');
is_error('/orders?m%c3%bcll=x', 'müll');
is_error("$_?tenant=acme", 'tenant') foreach qw(/metrics /healthz /readyz);
is_error('/stats?status=order_paid', 'status');
is_error('/stats?limit=1001', 'limit');
is_error('/stats?prefix=%ff', 'prefix');
foreach my $name (qw(tenant status))
{
	is_error("/orders?$name=$_", $name)
	  foreach qw(%00 a%00b acme%00 %ff %c3 acme%c3 %c0%80 %c1%81 %ed%a0%80 %f4%90%80%80 %f8%88%80%80%80 %e2%82 %e0%80%af);
}
ok(ask_json('/orders?tenant%00x=acme', status => 400), 'a NUL does not end the name of a parameter');
is(ask('/orders?tenant%00x=acme')->{status}, 400, 'a NUL in the name of a parameter is an error');

my $before = query('SELECT count(*), sum(hashtext(o::text)) FROM current_orders o');
foreach my $value ("'", "''", "' OR '1'='1", "'; DROP TABLE current_orders; --", "acme'--", 'acme"', '$$;DROP TABLE events;$$', '$1', '\\', "\\'; SELECT 1; --",
	'acme/*', '*/', '%s%n%s%n', '%d%p', '{acme,initech}', 'NULL', 'null', '%', '_', '.*', "a\nb", "a\tb\r\n", "\x{1F600}", "\x{FFFF}", 'x' x 5000)
{
	my $shown = substr($value, 0, 40) =~ s/([^ -~])/sprintf '\\x{%x}', ord $1/egr;

	is_deeply([ map { ask_json($_ . in_url($value)) } '/orders?tenant=', '/orders?status=', '/stats?tenant=' ], [ [], [], [] ], "'$shown' matches no tenant and no status")
	  if length $value < 5000;
	is_error('/orders?limit=' . in_url($value), 'limit', "'$shown' is no limit");
	is(ask('/orders?' . in_url($value) . '=1')->{status}, 400, "'$shown' is no parameter");
}
is_deeply(ask_json('/orders?tenant=' . 'x' x 15000), [], 'a long tenant');
is(query('SELECT count(*), sum(hashtext(o::text)) FROM current_orders o'), $before, 'hostile parameters change nothing');

#
# Paths that do not exist, and methods that are not allowed
#
foreach my $path ('/orders/', '//orders', '/ORDERS', '/order', '/orders/1', '/../etc/passwd', '/..%2f..%2fetc/passwd', '/./orders', '/index.html', '/favicon.ico',
	'/%2forders', '/orders%00', '/orders%00/x', '/orders%20', '*')
{
	my ($answer, $next) = converse("GET $path HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 2);

	# libmicrohttpd 1.0 refuses these by itself
	if ($path =~ /%00/ && $answer->{status} == 400)
	{
		is($next, 'closed', "GET $path: refused");
		next;
	}
	is($answer->{status}, 404, "GET $path: not found");
	ok(exists object($answer->{content})->{error}, "GET $path: the error is JSON");
	is($next->{status}, 200, "GET $path: the connection can still be used");
}
foreach my $method (qw(POST PUT DELETE OPTIONS PATCH TRACE BREW))
{
	foreach my $path (qw(/ /orders /metrics /healthz))
	{
		my ($answer, $next) = converse("$method $path HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 2);

		is($answer->{status} . ($answer->{head} =~ /^Allow: (.*?)\r?$/m)[0], '405GET, HEAD', "$method $path");
		is($next->{status}, 200, "$method $path: the connection can still be used");
	}
}
foreach (
	[ 'GET /orders', "Content-Length: 5\r\n\r\nhello", 413 ],
	[ 'GET /', "Content-Length: 100000\r\n\r\n" . 'x' x 100_000, 413 ],
	[ 'GET /healthz', "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413 ],
	[ 'POST /orders', "Content-Length: 5\r\n\r\nhello", 405 ],
	[ 'POST /nothing', "Content-Length: 5\r\n\r\nhello", 404 ],
	[ 'GET /orders', 'X-Long: ' . 'x' x 100_000 . "\r\n\r\n", 431 ],
	[ 'GET /orders', join('', map { "X-Header-$_: value\r\n" } 1 .. 5000) . "\r\n", 431 ],
	[ 'GET /orders?tenant=' . 'x' x 100_000, "\r\n", 414 ])
{
	my ($request, $rest, $status) = @$_;
	my ($answer, $next) = converse("$request HTTP/1.1\r\nHost: x\r\n$rest", 2);

	is($answer->{status}, $status, sprintf('%.30s with %.30s', $request, $rest =~ s/[^ -~]/ /gr));
	like($answer->{head}, qr/^Connection: close\r?$/mi, 'the answer says that the connection will be closed');
	is($next, 'closed', 'the connection is closed');
}
is((converse("GET /orders?limit=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 1))[0]{status}, 200, 'an empty body counts as none');
is(ask('/healthz')->{status}, 200, 'other clients are answered');

#
# A client is not sent what it already has
#
query('SELECT spine_wait()');
foreach my $target ('/', '/orders', '/orders?tenant=acme&limit=3', '/stats')
{
	my $first = ask($target);
	my $tag = $first->{headers}{etag} // '';
	my $strong = $tag =~ s/^W\///r;

	like($tag, qr/^(?:W\/)?"[^"]+"$/, "$target has an entity tag");
	foreach my $value ($tag, $strong, "W/$strong", "\"x\", $tag", "W/\"x\",$strong,\"y\"", '*')
	{
		my $again = ask($target, headers => { 'If-None-Match' => $value });

		is($again->{status} . ($again->{content} // ''), 304, "$target: 304 with $value");
		is($again->{headers}{etag}, $tag, "$target: 304 has the same tag");
	}
	foreach my $value ('"x"', 'W/"x"', '', $strong =~ s/"//gr, substr($strong, 0, 5) . '"')
	{
		my $again = ask($target, headers => { 'If-None-Match' => $value });

		is($again->{status}, 200, "$target: 200 with $value");
		is($again->{content}, $first->{content}, "$target: 200 has the same content");
	}
	is(ask($target, method => 'HEAD', headers => { 'If-None-Match' => $tag })->{status}, 304, "$target: 304 to HEAD");
}
is(ask($_)->{headers}{etag}, undef, "$_ has no entity tag") foreach qw(/metrics /healthz /readyz);

my %tags = map { $_ => ask($_)->{headers}{etag} } '/orders', '/stats', '/orders?tenant=initech', '/stats?tenant=initech';
query('CREATE TABLE unrelated AS SELECT 1');
is(ask($_, headers => { 'If-None-Match' => $tags{$_} })->{status}, 304, "304 after another transaction: $_") foreach sort keys %tags;
query(q{SELECT spine_produce('acme', 1), spine_wait()});
foreach my $target (sort keys %tags)
{
	# each thread has a session of its own: ask often enough to reach all of them
	my @answers = map { ask($target, headers => { 'If-None-Match' => $tags{$target} }) } 1 .. 12;
	my $expected = $target =~ /initech/ ? 304 : 200;

	is_deeply([ map { $_->{status} } @answers ], [ ($expected) x 12 ], "$expected after an event of another tenant: $target")
	  if $expected == 304;
	is_deeply([ map { $_->{status} } @answers ], [ ($expected) x 12 ], "$expected after an event: $target") if $expected == 200;
	isnt($answers[-1]{headers}{etag}, $tags{$target}, "$target has another tag") if $expected == 200;
}

#
# gzip, for clients that accept it
#
foreach my $target ('/', '/orders', '/stats', '/metrics')
{
	my $plain = ask($target);
	my $packed = ask($target, headers => { 'Accept-Encoding' => 'br, gzip;q=0.5' });
	my $unpacked;

	is($plain->{headers}{'content-encoding'}, undef, "$target: not compressed unless asked");
	is($_->{headers}{vary}, 'Accept-Encoding', "$target: Vary") foreach $plain, $packed;
	next if length $plain->{content} < 1000;
	is($packed->{headers}{'content-encoding'}, 'gzip', "$target: compressed");
	cmp_ok(length $packed->{content}, '<', length($plain->{content}) / 2, "$target: smaller when compressed");
	ok(gunzip(\$packed->{content}, \$unpacked), "$target: can be decompressed") or diag $GunzipError;
	is($unpacked, $plain->{content}, "$target: the same when decompressed") unless $target eq '/metrics';
	parse_metrics($unpacked) if $target eq '/metrics';
	is($packed->{headers}{etag}, $plain->{headers}{etag}, "$target: the same tag when compressed");
}
foreach ([ 'gzip', 1 ], [ 'GZIP', 1 ], [ '*', 1 ], [ 'deflate,gzip;q=1.0', 1 ], [ 'gzip;q=0.001', 1 ], [ 'gzip;q=0', 0 ], [ 'gzip; q=0', 0 ], [ 'gzip ; Q=0.000', 0 ],
	[ 'identity', 0 ], [ 'br', 0 ], [ 'xgzip', 0 ], [ 'gzipped', 0 ], [ '*;q=0', 0 ], [ '', 0 ], [ '*, gzip;q=0', 0 ])
{
	my ($accept, $gzip) = @$_;

	is(ask('/', headers => { 'Accept-Encoding' => $accept })->{headers}{'content-encoding'}, $gzip ? 'gzip' : undef, "Accept-Encoding: '$accept'");
}

#
# Nothing but the page's own script and style can run in the page
#
my $page = ask('/');
is(ask('/?tenant=acme&status=%ff&nonsense')->{content}, $page->{content}, 'the page is the same with a filter in the URL');
my $policy = $page->{headers}{'content-security-policy'} // '';
my %hashes = map { my ($tag) = $_; ($tag => [ map { sha256_base64($_) . '=' } $page->{content} =~ m{<$tag\b[^>]*>(.*?)</$tag>}gs ]) } qw(script style);
foreach my $tag (qw(script style))
{
	is(scalar @{ $hashes{$tag} }, 1, "the page has one <$tag>");
	like($policy, qr/(?:^|; ?)$tag-src 'sha256-\Q$hashes{$tag}[0]\E'(?:;|$)/, "the page's policy allows this <$tag>");
}
like($policy, qr/(?:^|; ?)default-src 'none'(?:;|$)/, 'the policy allows nothing else');
unlike($policy, qr/unsafe|https?:|\*/, 'the policy allows nothing unsafe');
like($policy, qr/frame-ancestors 'none'/, 'the policy forbids frames');
is($page->{headers}{'referrer-policy'}, 'no-referrer', 'the page sends no referrer');
my $markup = $page->{content} =~ s{<(script|style)\b[^>]*>.*?</\1>}{}gsr;
is_deeply([ $markup =~ /<[^>]*\s(?:on\w+|style)\s*=[^>]*|=\s*[\x22']?\s*javascript:/gi ], [], 'the page does not use what the policy forbids');
is_deeply([ $markup =~ m{(?:src|href)\s*=\s*["']?(?:\w+:)?//[^>]*}gi ], [], 'the page loads nothing from elsewhere');

#
# The role can only read.  Its sessions cannot even write to a table that anyone may write
#
foreach my $sql ('DELETE FROM current_orders', 'UPDATE events SET amount_cents = 0', q{INSERT INTO current_orders VALUES ('a', 'b', 'c', 1, 'USD', now())},
	'TRUNCATE events', 'DELETE FROM spine_order_totals', 'DELETE FROM spine_offsets', 'DELETE FROM spine_dead_letters', q{SELECT spine_produce('acme', 1)},
	q{SELECT spine_pause('orders')})
{
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'spine_http' ]);

	like($err, qr/permission denied|must be a member of role/, "refused for spine_http: $sql");
}
my $definition = query(q{SELECT pg_get_functiondef('spine_stats_summary'::regproc)});
query(<<'SQL');
CREATE TABLE written (i integer);
GRANT ALL ON written TO PUBLIC;
CREATE FUNCTION write_it() RETURNS bigint LANGUAGE sql AS 'INSERT INTO public.written VALUES (1) RETURNING 1::bigint';
CREATE OR REPLACE FUNCTION spine_stats_summary(of_tenant text DEFAULT NULL, name_prefix text DEFAULT NULL, max_tenants integer DEFAULT 100)
RETURNS TABLE (tenant text, currency text, orders bigint, revenue_cents numeric, by_status jsonb, tenants bigint)
LANGUAGE sql VOLATILE AS $$ SELECT 'a', 'b', public.write_it(), 1.0, '{}'::jsonb, 1::bigint $$;
SQL
is(ask('/stats')->{status}, 500, 'a session of spine-http cannot write');
like(slurp_file($http->{log}), qr/stats: .*read-only transaction/, 'the log says why');
is(query('SELECT count(*) FROM written'), 0, 'spine-http has written nothing');
query($definition);
is(ask('/stats')->{status}, 200, '/stats is answered once the function is restored');

#
# The counters
#
my $metrics = metrics();
my $n = query('SELECT count(*) FROM events');
my $pipeline = 'pipeline="orders"';
is($n, 2431, '2,431 events were produced');
is(sum_of($metrics, 'spine_events_produced_total', 'tenant="acme"'), 2001, 'produced: acme');
is(sum_of($metrics, 'spine_events_produced_total', 'tenant="initech"'), 400, 'produced: initech');
is(sum_of($metrics, 'spine_events_produced_total', encode('UTF-8', 'tenant="müller & söhne + co"')), 30, 'produced: a name in UTF-8');
is(sum_of($metrics, 'spine_events_produced_total'), $n, 'produced: no others');
is(sum_of($metrics, 'spine_records_consumed_total', $pipeline), $n, 'all are consumed');
is(sum_of($metrics, 'spine_events_applied_total', $pipeline), $n, 'all are applied');
cmp_ok(sum_of($metrics, 'spine_upserts_total', $pipeline), '>=', query('SELECT count(*) FROM current_orders'), 'at least as many upserts as orders');
cmp_ok(sum_of($metrics, 'spine_upserts_total', $pipeline), '<=', $n, 'at most as many upserts as events');
is(sum_of($metrics, 'spine_dead_letters_total', $pipeline), 0, 'no dead letters');
my $batches = sum_of($metrics, 'spine_batches_total', $pipeline);
cmp_ok($batches, '>', 0, 'there were batches');
is(sum_of($metrics, 'spine_batch_duration_seconds_count', $pipeline), $batches, 'as many durations as batches');
cmp_ok(sum_of($metrics, 'spine_batch_duration_seconds_sum', $pipeline), '>', 0, 'batches took time');
is(sum_of($metrics, 'spine_lag_records', $pipeline), 0, 'no lag');
is(sum_of($metrics, 'spine_next_offset', $pipeline), $n, 'the offsets are right');
is(sum_of($metrics, 'spine_high_watermark_offset', $pipeline), $n, 'the high watermarks are right');
is(query(q{SELECT count(*) FROM spine_status WHERE last_commit_at IS NOT NULL}),
	(grep { /^spine_last_commit_timestamp_seconds\{/ } keys %{ $metrics->{samples} }), 'each partition with a commit has its time');
is(sum_of($metrics, 'spine_worker_up', $pipeline), worker_pids($node), 'workers are up');
is(sum_of($metrics, 'spine_worker_failed', $pipeline), 0, 'no worker has failed');
is(sum_of($metrics, 'spine_pipeline_enabled', $pipeline), 1, 'the pipeline is enabled');
is(sum_of($metrics, 'spine_database_up'), 1, 'the database is up');

# the counters of a second spine-http begin at zero
my $second = start_http($node);
push @started, $second;
ask('/orders', of => $second) for 1 .. 3;
ask('/orders?limit=0', of => $second);
ask('/nothing', of => $second) for 1 .. 2;
ask("/$_", of => $second) foreach map { "unknown$_" } 1 .. 50;
ask('/', of => $second, method => 'POST');
my $own = until_true(sub {
	# an answer is counted just after it is sent
	my $m = metrics(of => $second);
	return sum_of($m, 'spine_http_requests_total', 'endpoint="/",') ? $m : undef;
});
is_deeply(
	{ map { /^spine_http_requests_total\{(.*)\}$/ && $1 !~ /metrics/ ? ($1 => $own->{samples}{$_}) : () } keys %{ $own->{samples} } },
	{   'endpoint="/orders",status="200"' => 3, 'endpoint="/orders",status="400"' => 1, 'endpoint="other",status="404"' => 52, 'endpoint="/",status="405"' => 1 },
	'requests are counted by endpoint and status');
is($own->{samples}{'spine_http_request_duration_seconds_count{endpoint="/orders"}'}, 4, 'requests are timed');
cmp_ok($own->{samples}{'spine_http_request_duration_seconds_sum{endpoint="/orders"}'}, '>', 0, 'requests took time');
is_deeply(
	$metrics->{types},
	{   (map { ("spine_${_}_total" => 'counter') } qw(events_produced records_consumed events_applied upserts unchanged filtered dead_letters batches http_requests)),
		(map { ("spine_$_" => 'gauge') } qw(next_offset high_watermark_offset lag_records last_commit_timestamp_seconds worker_up worker_failed
			  pipeline_enabled database_up)),
		(map { ("spine_$_" => 'histogram') } qw(batch_duration_seconds http_request_duration_seconds)) },
	'the metrics are complete, and there are no others');

# records that cannot be applied
my $address = query('SELECT spine_brokers()');
send_values($address, query(q{SHOW spine.topic}), 0, [ 'this is not JSON', '{"tenant": 1}' ]);
ok(wait_applied($node), 'bad records are read');
$metrics = metrics();
is(sum_of($metrics, 'spine_dead_letters_total', $pipeline), 2, 'dead letters are counted');
is(sum_of($metrics, 'spine_dead_letters_total', 'partition="0"'), 2, 'dead letters are counted for their partition');
is(sum_of($metrics, 'spine_records_consumed_total', $pipeline), $n + 2, 'dead letters count as consumed');
is(sum_of($metrics, 'spine_events_applied_total', $pipeline), $n, 'dead letters do not count as applied');
is(ask_json('/readyz')->{pipelines}[0]{dead_letters_total}, 2, '/readyz counts dead letters');

# counters outlive the worker
my ($pid) = worker_pids($node);
query("SELECT pg_terminate_backend($pid)");
ok( until_true(sub { my @pids = worker_pids($node); @pids && !grep { $_ == $pid } @pids }), 'another worker starts');
ok(wait_for_state($node, 'running'), 'the other worker runs');
query(q{SELECT spine_produce('acme', 5), spine_wait()});
my $after = metrics();
is_deeply([ grep { /(?:_total|_bucket|_sum|_count)(?:\{|$)/ && ($after->{samples}{$_} // -1) < $metrics->{samples}{$_} } sort keys %{ $metrics->{samples} } ],
	[], 'no counter went back or disappeared');
is(sum_of($after, 'spine_events_applied_total', $pipeline), $n + 5, 'the counters continue');
is(sum_of($after, 'spine_worker_up', $pipeline), worker_pids($node), 'the new worker is up');

# tenants whose names need escaping, and more tenants than have a series
my $hostile = qq{"quoted" back\\slash\nline \\n };
query(q{SELECT spine_produce(E'"quoted" back\\\\slash\nline \\\\n ', 3)});
is(metrics()->{samples}{'spine_events_produced_total{tenant="' . ($hostile =~ s/\\/\\\\/gr =~ s/"/\\"/gr =~ s/\n/\\n/gr) . '"}'}, 3, 'the name of a tenant is escaped');
query(q{SELECT sum(spine_produce('tenant ' || i, 1)) FROM generate_series(1, 70) i; SELECT spine_wait()});
$metrics = metrics();
my @tenants = grep { /^spine_events_produced_total\{/ } keys %{ $metrics->{samples} };
is(scalar @tenants, 64, '64 tenants have a series');
is(sum_of($metrics, 'spine_events_produced_total'), $n + 5 + 3 + 70, 'the events of the other tenants are counted too');
is($metrics->{samples}{'spine_events_produced_total'}, 74 - 64, 'the other tenants share a series');
is(scalar @{ ask_json('/stats') }, 74, '/stats has all of them');

SKIP:
{
	skip 'PROMTOOL is not set', 1 unless $ENV{PROMTOOL};
	my ($output, $text) = ('', ask('/metrics')->{content});

	ok(IPC::Run::run([ $ENV{PROMTOOL}, 'check', 'metrics' ], '<', \$text, '>&', \$output), 'promtool finds nothing wrong') or diag $output;
}

#
# Readiness
#
is_deeply([ map { $_->{pipeline} . ' ' . $_->{state} } @{ ask_json('/readyz')->{pipelines} } ], ['orders running'], '/readyz: running');
is(ask_json('/readyz')->{status}, 'ready', '/readyz: ready');
query(q{ALTER TABLE current_orders RENAME COLUMN amount_cents TO x; SELECT spine_produce('acme', 1)});
my $not_ready = until_true(sub { my $answer = ask('/readyz'); $answer->{status} == 503 ? $answer : undef });
my $report = object($not_ready->{content});
is_deeply([ $report->{status}, map { "$_->{pipeline} $_->{state}" } @{ $report->{pipelines} } ], [ 'not ready', 'orders failed' ], '/readyz: failed');
is($not_ready->{headers}{'retry-after'}, 1, '/readyz: failed, with Retry-After');
is(ask('/healthz')->{status}, 200, '/healthz still answers 200');
cmp_ok(sum_of(metrics(), 'spine_worker_failed', $pipeline), '>', 0, '/metrics says that a worker has failed');
query('ALTER TABLE current_orders RENAME COLUMN x TO amount_cents');
ok( until_true(sub { ask('/readyz')->{status} == 200 }), '/readyz: 200 again');
is(ask('/orders')->{status}, 200, '/orders: 200 again');
is(sum_of(metrics(), 'spine_worker_failed', $pipeline), 0, '/metrics: no worker has failed');

#
# In another schema, in another encoding
#
$node->safe_psql('postgres', q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'});
query('CREATE SCHEMA "Odd one"; CREATE EXTENSION spine SCHEMA "Odd one"', 'latin');
grant_http_role($node, 'latin', '"Odd one"');
ok(until_true(sub { query(q{SELECT "Odd one".spine_wait('60s')}, 'latin') eq 't' }), 'another database reads the topic too');
query(q{SELECT "Odd one".spine_produce('çedille ß', 20), "Odd one".spine_wait('60s')}, 'latin');
my $latin = start_http($node, '--dbname=' . $node->connstr('latin') . ' user=spine_http');
push @started, $latin;
my $found = ask_json('/orders?limit=1000&tenant=' . in_url('çedille ß'), of => $latin);
is(scalar @$found, query(q{SELECT count(*) FROM "Odd one".current_orders WHERE tenant = 'çedille ß'}, 'latin'), 'LATIN1: a tenant has its orders');
is_deeply([ grep { $_->{tenant} ne 'çedille ß' } @$found ], [], 'LATIN1: the tenant arrives in UTF-8');
ok((grep { $_->{tenant} eq 'çedille ß' } @{ ask_json('/stats', of => $latin) }), 'LATIN1: the tenant is in /stats');
foreach my $target ('/orders?tenant=', '/orders?status=', '/stats?tenant=')
{
	my $answer = ask($target . in_url('日本'), of => $latin);

	is($answer->{status}, 400, "LATIN1: characters that it lacks are refused: $target");
	is(object($answer->{content})->{parameter}, $target =~ /(\w+)=/ ? $1 : undef, "LATIN1: the parameter is named: $target");
}
is(ask('/orders?tenant=a&status=' . in_url('日'), of => $latin)->{status}, 400, 'LATIN1: characters that it lacks in one of two parameters');
is(ask($_, of => $latin)->{status}, 200, "LATIN1: $_ is served") foreach qw(/orders /stats /metrics /readyz);
cmp_ok(sum_of(metrics(of => $latin), 'spine_events_applied_total'), '>', 0, 'LATIN1: the counters are those of the database');

#
# The end
#
foreach my $each (@started)
{
	is(stop_http($each), 0, 'spine-http ends with exit code 0');
	my $log = slurp_file($each->{log});
	unlike($log, qr/Sanitizer|runtime error/, 'no sanitizer has complained');
	my @odd = grep { !/^\S+Z (?:127\.0\.0\.1 "|spine-http: (?:serving|ending|Error processing request|Not enough memory in pool|Failed to allocate memory in the connection memory pool))/ } split /\n/, $log;
	is_deeply([ grep { !/spine-http: stats: ERROR:  cannot execute INSERT in a read-only transaction/ } @odd ], [], 'the log has nothing unexpected');
}
$node->stop;
done_testing();
