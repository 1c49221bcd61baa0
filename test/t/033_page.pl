# The live page, in a real browser.  Orders appear and change by themselves, the totals
# are those of spine_stats, the filter is in the URL, and everything in a record is shown
# as text.  When something is wrong the page says what, keeps what it has, and continues
# by itself.
#
# Broken when
# - the page cannot read an answer of the server;
# - the page has to be reloaded to show something;
# - a value of a record becomes markup;
# - the content security policy does not allow what the page needs, or the page asks
#   another server;
# - something moves while a person looks at it or chooses it;
# - trouble is not reported, or the report outlives its cause;
# - the page does not work on a telephone, in dark mode or with a keyboard.
#
# Leaves the screenshots page.png, page-dark.png and page-phone.png in
# $SPINE_SCREENSHOTS.
use strict;
use utf8;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Browser;
use Encode qw(decode_utf8);
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SpineTest;
use Test::More;

plan skip_all => 'needs chromium and chromedriver' unless Browser::available();

my $screenshots = $ENV{SPINE_SCREENSHOTS} // $ENV{TESTDATADIR} // $PostgreSQL::Test::Utils::tmp_check;
my $json = JSON::PP->new->canonical->ascii->allow_nonref;
my $node = spine_node('main');
grant_http_role($node);
my $http = start_http($node);
my $browser = Browser->new(window => [ 1280, 800 ]);

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

# A query's rows as a list of lists.
sub rows
{
	my ($sql) = @_;

	return $json->decode(decode_utf8(query(<<SQL)));
SELECT coalesce(json_agg((SELECT json_agg(value) FROM json_each(to_json(q)))), '[]') FROM ($sql) q
SQL
}

sub send_events
{
	my ($address) = query('SELECT spine_brokers()');

	send_lines($address, 'events', undef, join '', map { "k\t" . order_event(%$_) . "\n" } @_);
	return;
}

# A test: waits until the expression is true in the page.
sub shows
{
	my ($expression, $what, $page) = @_;
	my $seen = eval { ($page // $browser)->wait_for($expression, $what) };

	ok($seen, $what) or diag $@;
	return;
}

# A test: waits until a JavaScript expression has the value, which is given as Perl data.
sub shows_value
{
	my ($expression, $value, $what) = @_;
	my $is = "JSON.stringify($expression) === JSON.stringify(" . $json->encode($value) . ')';

	eval { $browser->wait_for($is, $what) };
	is_deeply($browser->js("return $expression"), $value, $what);
	return;
}

sub nothing_broke
{
	my ($when, $page) = @_;

	is_deeply([ ($page // $browser)->console_errors ], [], "no error in the console: $when");
	return;
}

my $row_count = q{document.querySelectorAll('#orders tr').length};
my $first_rows = q{[...document.querySelectorAll('#orders tr')].map((tr) =>
	['order', 'tenant', 'status', 'amount', 'time'].map((name) => name === 'amount' ? tr.querySelector('td.amount').title
		: name === 'time' ? tr.querySelector('time').title : tr.querySelector('td.' + name).textContent))};
my $totals = q{[...document.querySelectorAll('#totals .entry')].map((entry) =>
	[entry.querySelector('button').textContent, entry.title.split('\n')[1],
		entry.querySelector('.quiet').textContent.replace(/[^0-9]/g, '')]).sort()};
my $text = q{document.getElementById('%s').textContent};

sub text_of
{
	return sprintf $text, $_[0];
}

# The contents of the tables, as the page shows them.
sub expected_rows
{
	my ($arguments) = @_;

	return rows(sprintf <<'SQL', $arguments // '');
SELECT order_id, tenant, regexp_replace(status, '^order_', ''), round(amount_cents / 100.0, 2) || ' ' || currency,
	   regexp_replace(to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.?0*$', '') || 'Z'
FROM spine_orders(%s)
SQL
}

sub expected_totals
{
	return [ sort { "$a->[0],$a->[1]" cmp "$b->[0],$b->[1]" }
		  @{ rows(q{SELECT tenant, round(revenue_cents / 100.0, 2) || ' ' || currency, orders::text FROM spine_stats()}) } ];
}

#
# A page without orders
#
$browser->go("$http->{url}/");
shows(text_of('empty') . q{.includes("SELECT spine_produce('acme'")}, 'without orders the page says how to make some');
shows(q{document.body.dataset.connection === 'live'}, 'the page is live');
shows(text_of('state') . q{ === 'running'}, 'the pipeline runs');
shows_value("['lag', 'dead-letters', 'state-note', 'dead-letters-note'].map((id) => " . q{document.getElementById(id).textContent)},
	[ '0', '0', 'orders', 'none refused' ], 'pipeline orders has no lag and no dead letters');

# A row that changes is marked only for a moment, so the page is told to remember the
# marks.  A page that is loaded again forgets them.
my $watch = <<'JS';
window.lit = [];
new MutationObserver((changes) => {
	for (const { target, addedNodes } of changes)
		for (const node of [target, ...addedNodes])
			if (node.classList?.contains('changed')) window.lit.push(node.querySelector('td.order').textContent);
}).observe(document.getElementById('orders'), { subtree: true, childList: true, attributeFilter: ['class'] });
JS
$browser->js($watch);
query(q{SELECT spine_produce('acme', 50), spine_wait()});
my $orders = query('SELECT count(*) FROM current_orders');
shows("$row_count === $orders", 'orders appear without a reload');
shows_value($first_rows, expected_rows(), 'the rows are those of spine_orders, newest first');
shows("new Set(window.lit).size === $orders", 'all new rows are marked');
shows(q{document.querySelector('#orders tr.changed') === null}, 'the marks go away');
ok($browser->js(q{return document.getElementById('empty').hidden}), 'with orders the page no longer says how to make some');

# Two orders change, one of which is the last row
my ($last, $middle) = map { $_->[0] } @{ rows('SELECT order_id FROM current_orders ORDER BY updated_at') }[ 0, 20 ];
$browser->js('window.lit = []');
send_events(map { { order_id => $_, event_type => 'order_cancelled', event_time => '2096-01-01T00:00:00.5Z' } } $last, $middle);
shows_value('[...new Set(window.lit)].sort()', [ sort $last, $middle ], 'two orders change: only these are marked');
shows_value("$first_rows.slice(0, 2).map((row) => row[0]).sort()", [ sort $last, $middle ], 'two orders change: they are the first now');
shows_value($first_rows, expected_rows(), 'two orders change: the rows are those of spine_orders');
$browser->js('window.lit = []');
query(q{SELECT spine_produce('acme', 300), spine_wait()});
shows_value($first_rows, expected_rows(), 'more events: the rows are the newest 100');
is($browser->js("return $row_count"), 100, 'the page has 100 rows');
cmp_ok($browser->js('return window.lit.length'), '>=', 98, 'more events: the new rows are marked');

#
# Totals, lag, dead letters, and the state of the pipeline
#
query(q{SELECT spine_produce(t, 30) FROM unnest('{globex,initech}'::text[]) t});
query('SELECT spine_wait()');
query(q{UPDATE current_orders SET currency = 'EUR' WHERE tenant = 'globex' AND order_id LIKE '%1%'});
query(q{INSERT INTO current_orders SELECT 'rich', n, 'order_paid', 9007199254740993, 'USD', now() FROM generate_series(1, 2) n});
shows_value($totals, expected_totals(), 'the totals are those of spine_stats, to the cent');
shows(text_of('totals-note') . " === '4 tenants'", 'the page counts four tenants');
ok((grep { $_->[1] eq '180143985094819.86 USD' } @{ $browser->js("return $totals") }), 'a total that no double can hold is right');
query(q{DELETE FROM current_orders WHERE tenant = 'rich'});
shows_value($totals, expected_totals(), 'a tenant without orders disappears');

send_events({ event_time => 'when?' }, { amount_cents => 'a lot' });
shows(text_of('dead-letters') . " === '2'", 'dead letters are counted');
shows(text_of('dead-letters-note') . ".includes('spine_dead_letters')", 'the page says where to look for dead letters');

# A lock holds the worker up in the middle of the events.
my $events = query('SELECT count(*) FROM events');
set_config($node, 'spine.batch_rows' => 50);
query(<<SQL);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
\$\$BEGIN
	IF (SELECT count(*) FROM public.events) >= $events + 100 THEN
		PERFORM pg_advisory_xact_lock_shared(1);
	END IF;
	RETURN NULL;
END\$\$;
CREATE TRIGGER hold BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION hold();
SQL
my $user = $node->background_psql('postgres');
$user->query_safe('BEGIN; SELECT pg_advisory_xact_lock(1)');
query(q{SELECT spine_produce('acme', 1234)});
shows(text_of('lag') . ".replace(/[^0-9]/g, '') > 0", 'while the worker is held up, the page shows a lag');
$user->query_safe('COMMIT');
$user->quit;
shows(text_of('lag') . " === '0'", 'once the worker continues, the lag disappears');
query('DROP FUNCTION hold CASCADE');
shows_value($first_rows, expected_rows(), 'the rows are up to date again');

query(q{SELECT spine_pause('orders')});
shows(text_of('state') . " === 'paused'", 'paused: the state says so');
shows(text_of('headline') . q{.includes('“orders” paused')}, 'paused: the headline says so');
query(q{SELECT spine_resume('orders')});
shows(text_of('state') . " === 'running'", 'resumed: the state is running');
shows(text_of('headline') . q{.startsWith('Live')}, 'resumed: the headline is calm');

query('ALTER TABLE events RENAME COLUMN amount_cents TO cents');
send_events({ tenant => 'mended' });
shows(text_of('state') . " === 'failed'", 'a column is missing: the state is failed');
shows(text_of('headline') . q{.includes('“orders” failed') && document.getElementById('banner').dataset.tone === 'bad'}, 'a column is missing: the headline says that the pipeline failed');
is($browser->js('return document.body.dataset.connection'), 'live', 'a column is missing: the orders are still live');
query('ALTER TABLE events RENAME COLUMN cents TO amount_cents');
shows(text_of('state') . " === 'running'", 'the column is back: the state is running');
shows(text_of('headline') . q{.startsWith('Live') && document.getElementById('banner').dataset.tone === 'calm'}, 'the column is back: the headline is calm');
shows(q{[...document.querySelectorAll('#totals button')].some((button) => button.textContent === 'mended')}, 'the column is back: the event has arrived');
nothing_broke('orders, totals and states');

#
# The filter
#
my $only = q{[...new Set([...document.querySelectorAll('#orders td.tenant')].map((td) => td.textContent))]};

sub shows_tenant
{
	my ($tenant, $what) = @_;

	shows_value('[new URLSearchParams(location.search).get("tenant"), document.getElementById("tenant").value]',
		[ $tenant, $tenant ], "$what: the tenant is in the URL and in the field");
	shows_value($first_rows, expected_rows(q{'} . ($tenant =~ s/'/''/gr) . q{'}), "$what: the rows are the newest of that tenant");
	shows_value($only, [$tenant], "$what: no other tenant is shown");
	return;
}

$browser->type('#tenant', 'globex');
$browser->press('#tenant', 'Enter');
shows_tenant('globex', 'typed');
query(q{SELECT spine_produce(t, 20) FROM unnest('{acme,globex}'::text[]) t});
query('SELECT spine_wait()');
shows_tenant('globex', 'with new events of this tenant and another');
$browser->reload;
shows_tenant('globex', 'after a reload');
$browser->click('#clear');
shows_value('[location.search, document.getElementById("tenant").value]', [ '', '' ], 'the filter is cleared');
shows_value($first_rows, expected_rows(), 'all tenants again');
$browser->back;
shows_tenant('globex', 'back');
$browser->forward;
shows_value($first_rows, expected_rows(), 'forward: all tenants again');
$browser->js(q{[...document.querySelectorAll('#totals button')].find((button) => button.textContent === 'initech').click()});
shows_tenant('initech', 'chosen from the totals');
$browser->js(q{const status = document.getElementById('status');
	status.value = 'order_paid'; status.dispatchEvent(new Event('change', { bubbles: true }))});
shows_value($first_rows, expected_rows(q{'initech', 'order_paid'}), 'a tenant and a status');
$browser->go("$http->{url}/?tenant=nobody%20at%20all");
shows(text_of('empty') . q{ === 'No order matches the filter.'}, 'an unknown tenant has no orders');
$browser->press('#tenant', 'Escape');
shows_value($first_rows, expected_rows(), 'Escape clears the filter');
nothing_broke('filters');

#
# Hostile text
#
my @evil = (
	'<img src=x onerror=window.pwned=1>', '</script><script>window.pwned=1</script>', '"><svg onload=window.pwned=1>',
	'javascript:window.pwned=1', q{' onmouseover='window.pwned=1}, '" autofocus onfocus="window.pwned=1', '</title><b>bold</b>',
	"\x{202e}evitra\x{2066}", '&lt;b&gt; &amp;', '${window.pwned=1}', '__proto__', 'constructor', 'ord-1&status=x#y%00', 'Zoë 注文 😀');
$browser->js($watch);
send_events(map { { tenant => $_, order_id => $_, event_type => $_, event_time => '2097-01-01T00:00:00Z' } } @evil);
query('SELECT spine_wait()');
my %shown = map { $_->[0] => $_ } @{ $browser->wait_for(
	"$first_rows.slice(0, @{[ scalar @evil ]}).filter((row) => row[4].startsWith('2097')).length === @{[ scalar @evil ]} && $first_rows",
	'the rows of odd names') };
is_deeply([ @{ $shown{$_} // [] }[ 0 .. 2 ] ], [ ($_) x 3 ], "shown as text: " . $json->encode($_)) foreach @evil;
shows_value($totals . '.length', scalar @{ expected_totals() }, 'odd names: the totals are there');
my $elements = q{[...new Set([...document.querySelectorAll('#orders *, #totals *')].map((one) => one.localName))].sort()};
is_deeply($browser->js("return $elements"), [qw(bdi button div li p span td time tr)], 'odd names become no markup in orders and totals')
  or diag $json->encode($browser->js("return $elements"));
is($browser->js(q{return document.querySelectorAll('img, b, main svg, main script, iframe, a').length}), 0, 'odd names become no markup anywhere');
is($browser->js(q{return getComputedStyle(document.querySelector('#orders td.order')).unicodeBidi}), 'isolate',
	'characters that change the direction of text affect only their own cell');
foreach my $tenant (@evil[ 0, 1, 5, 7, 10, 12, 13 ])
{
	$browser->js(q{[...document.querySelectorAll('#totals button')].find((button) => button.textContent === arguments[0]).click()}, $tenant);
	shows_value("[new URLSearchParams(location.search).get('tenant'), document.getElementById('tenant').value, $only]",
		[ $tenant, $tenant, [$tenant] ], 'as a filter: ' . $json->encode($tenant));
}
$browser->reload;
shows_value("$only", [ $evil[13] ], 'a filter with an odd name survives a reload');
ok($browser->js(q{return window.pwned === undefined && !document.querySelector('img')}), 'no script in a name has run');
$browser->press('#tenant', 'Escape');
nothing_broke('odd names');

#
# What a person looks at stays in its place
#
my $top = q{[...document.querySelectorAll('#orders td.order')].slice(0, 3).map((td) => td.textContent)};
my $focused = q{document.activeElement.closest('#orders tr')?.querySelector('td.order').textContent ?? null};
my $pressed = q{document.getElementById('hold').getAttribute('aria-pressed')};
my $listed = q{[...document.querySelectorAll('#totals button')].map((button) => button.textContent)};

sub send_order
{
	my ($order, $time, %more) = @_;

	send_events({ order_id => $order, event_time => "2098-01-01T00:00:0${time}Z", %more });
	query('SELECT spine_wait()');
	return;
}

send_order($_->[0], $_->[1]) foreach ([ 'low', 1 ], [ 'middle', 2 ], [ 'high', 3 ]);
$browser->go("$http->{url}/");
shows_value($top, [ 'high', 'middle', 'low' ], 'three orders are on top');
$browser->press('#orders-scroll', 'Tab');
is($browser->js("return $focused"), 'high', 'Tab goes to the first row');
foreach ([ 'middle', 'ArrowDown' ], [ 'low', 'ArrowDown' ], [ 'middle', 'ArrowUp' ], [ undef, 'Shift', 'Tab' ], [ 'middle', 'Tab' ])
{
	my ($order, @keys) = @$_;

	$browser->press(undef, @keys);
	is($browser->js("return $focused"), $order, join('+', @keys) . ' goes to ' . ($order // 'what comes before the rows'));
}
send_order('middle', 4);
shows_value($top, [ 'middle', 'high', 'low' ], 'a row moves');
is($browser->js("return $focused"), 'middle', 'the focus moves with the row');

$browser->click('#hold');
shows("$pressed === 'true' && " . text_of('headline') . q{.startsWith('Held')}, 'held: the headline says so');
send_order('new', 5);
# The page asks again only after an answer.  So with a third request, the second one was
# made after the new order, and its answer has been handled.
$browser->js('performance.clearResourceTimings()');
shows(q{performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/orders?')).length >= 3}, 'held: new answers arrive');
is_deeply($browser->js("return $top"), [ 'middle', 'high', 'low' ], 'held: the rows stay');
is_deeply($browser->js("document.getElementById('hold').click(); return $first_rows"), expected_rows(), 'released: the new rows are there at once');
shows("$pressed === 'false' && " . text_of('headline') . q{.startsWith('Live')}, 'released: the headline says so');
$browser->click('#hold');
$browser->type('#tenant', 'acme');
$browser->press('#tenant', 'Enter');
shows_tenant('acme', 'a filter while held');
is($browser->js("return $pressed"), 'false', 'a filter ends the hold');
$browser->press('#tenant', 'Escape');

# A person chooses one of the totals, with the pointer or with the keyboard.
foreach ([ 'the pointer', sub { $browser->hover('#totals .entry') }, sub { $browser->hover('h1') } ],
	[ 'the focus', sub { $browser->js(q{document.querySelector('#totals button').focus()}) }, sub { $browser->js('document.activeElement.blur()') } ])
{
	my ($what, $come, $go) = @$_;
	my $order = $what =~ s/.* //r;

	send_order($order, 6, tenant => "of $order", amount_cents => 0);
	shows_value($listed, [ map { $_->[0] } @{ rows('SELECT tenant FROM spine_stats()') } ], 'the largest total comes first');
	my $before = $browser->js("return $listed");
	$come->();
	send_order($order, 7, tenant => "of $order", amount_cents => 10**12);
	send_order($order, 7, tenant => "new to $order", amount_cents => 10**13);
	shows_value($totals, expected_totals(), 'a total grows, and a new one appears');
	is_deeply($browser->js("return $listed"), [ @$before, "new to $order" ], "under $what nothing moves");
	$go->();
	shows_value($listed, [ map { $_->[0] } @{ rows('SELECT tenant FROM spine_stats()') } ], "without $what, the totals are in order again");
}
nothing_broke('rows and totals that stay');

#
# Trouble comes and passes, without a reload of the page
#
# Stops something, starts it again, and checks the page.
sub survives
{
	my ($what, $connection, $headline, $stop, $start) = @_;

	$browser->js(<<'JS');
window.same = true;
window.said = [];
window.saying?.disconnect();
window.saying = new MutationObserver(() => window.said.push(document.body.dataset.connection));
window.saying.observe(document.body, { attributeFilter: ['data-connection'] });
JS
	shows_value($first_rows, expected_rows(), "before $what");
	my $before = $browser->js("return $first_rows");
	$stop->();
	shows("document.body.dataset.connection === '$connection'", "$what: the page notices");
	shows(text_of('headline') . ".includes('$headline') && document.getElementById('banner').dataset.tone === 'bad'", "$what: the headline says so");
	is_deeply($browser->js("return $first_rows"), $before, "$what: the rows are kept");
	shows(q{document.getElementById('orders-scroll').classList.contains('stale') && document.getElementById('age').textContent !== ''},
		"$what: the rows are marked as old");
	$start->();
	shows(q{document.body.dataset.connection === 'live' && document.querySelector('.stale') === null}, "after $what: the page is live again by itself");
	shows(text_of('headline') . q{.startsWith('Live')}, "after $what: the headline is calm");
	query(q{SELECT spine_produce('acme', 10)});
	query('SELECT spine_wait()');
	shows_value($first_rows, expected_rows(), "after $what: new orders arrive");
	ok($browser->js('return window.same === true'), "after $what: the page was not reloaded");
	is_deeply($browser->js('return [...new Set(window.said)].sort()'), [ sort 'live', $connection ], "after $what: no other trouble was reported meanwhile");
	nothing_broke($what);
	return;
}

query('TRUNCATE current_orders, events; SELECT spine_produce(t, 60) FROM unnest($${acme,globex,initech}$$::text[]) t');
query('SELECT spine_wait()');
survives('the database is stopped', 'database-away', 'The database cannot be reached',
	sub { $node->stop('fast') },
	sub { $node->start; wait_for_state($node, 'running') });
survives('the database hangs', 'database-away', 'The database cannot be reached',
	sub { freeze_node($node) },
	sub { thaw_node() });
survives('a privilege is revoked', 'database-away', 'The orders cannot be read',
	sub { query('REVOKE SELECT ON current_orders FROM spine_http') },
	sub { query('GRANT SELECT ON current_orders TO spine_http') });
survives('spine-http is stopped', 'server-away', 'spine-http, cannot be reached',
	sub { is(stop_http($http), 0, 'spine-http ends') },
	sub { $http = start_http($node, "--port=$http->{port}") });

my $resources = q{performance.getEntriesByType('resource').map((entry) => entry.name)};
is($browser->js("return $resources.filter((name) => !name.startsWith(location.origin + '/') && !name.startsWith('data:')).join(' ')"),
	'', 'the page asks no other server');
cmp_ok($browser->js("return $resources.length"), '>', 10, 'the page asks its own server');

#
# Keys
#
$browser->go("$http->{url}/");
shows_value($first_rows, expected_rows(), 'the page is loaded again');
my $focus = q{document.activeElement.id};
for (1 .. 5)
{
	$browser->press(undef, 'Tab');
	last if $browser->js("return $focus") eq 'tenant';
}
is($browser->js("return $focus"), 'tenant', 'Tab goes to the filter');
ok($browser->js(q{const style = getComputedStyle(document.activeElement);
	return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && style.outlineColor !== getComputedStyle(document.body).backgroundColor}),
	'the focus is visible');
$browser->press(undef, $_) foreach (qw(a c m e), 'Enter');
shows_tenant('acme', 'a filter with the keyboard only');
$browser->press(undef, 'Escape');
shows_value($first_rows, expected_rows(), 'Escape clears the filter with the keyboard only');
nothing_broke('keys');

#
# The looks of the live page
#
sub is_dark
{
	my ($page) = @_;
	my @colour = $page->js('return getComputedStyle(document.body).backgroundColor') =~ /(\d+)/g;

	return $colour[0] + $colour[1] + $colour[2] < 3 * 64 ? 1 : 0;
}

# The elements that would have to be scrolled sideways, if any.
my $wider = q{[document.documentElement, ...document.querySelectorAll('.scroll')]
	.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.id || one.localName).join(' ')};

sub take_screenshot
{
	my ($page, $name, $width, $height) = @_;

	# rows of all tenants, some of them marked
	shows("$row_count === 100 && document.body.dataset.connection === 'live' && parseFloat(" . text_of('rate') . q{) > 0
		&& document.getElementById('spark').points.length >= 3
		&& new Set([...document.querySelectorAll('#orders td.tenant')].slice(0, 10).map((td) => td.textContent)).size === 3
		&& document.querySelector('#orders tr.changed') && document.querySelectorAll('#orders tr.changed').length < 12},
		"$name: live", $page);
	is($page->js("return $wider"), '', "$name: nothing is wider than the screen");
	$page->screenshot("$screenshots/$name");
	is_deeply([ unpack 'x16NN', slurp_file("$screenshots/$name") ], [ $width, $height ], "$name: the picture has the size of the window");
	nothing_broke($name, $page);
	return;
}

set_config($node, 'spine.producer_tenants' => 'acme, globex, initech', 'spine.producer_rate' => 6);
$browser->js('document.activeElement.blur()');
ok(!is_dark($browser), 'the background is light');
take_screenshot($browser, 'page.png', 1280, 800);
$browser->quit;

$browser = Browser->new(window => [ 1280, 800 ], dark => 1);
$browser->go("$http->{url}/");
ok(is_dark($browser), 'in dark mode the background is dark');
take_screenshot($browser, 'page-dark.png', 1280, 800);
$browser->quit;

$browser = Browser->new(window => [ 360, 740 ]);
$browser->go("$http->{url}/");
take_screenshot($browser, 'page-phone.png', 360, 740);
set_config($node, 'spine.producer_rate' => 0);
query(q{INSERT INTO current_orders SELECT 'tenant-with-much', i, 'order_paid', 90000, 'USD', '2026-01-01Z' FROM generate_series(1, 50000) i});
my $much = q{[...document.querySelectorAll('#totals .entry button')].find((one) => one.textContent === 'tenant-with-much')};
shows($much, 'a tenant with many orders is listed');
is($browser->js("const one = $much; return one.scrollWidth - one.clientWidth"), 0, 'its figures leave room for its name');
send_events(map { { tenant => $_ x 60, order_id => $_ x 60, event_type => $_ x 60, event_time => '2098-01-01T00:00:00Z',
	amount_cents => 9223372036854775807 } } 'wide', '<i>', "\x{202e}abc ");
query('SELECT spine_wait()');
shows(qq{document.querySelector('#orders td.order').title.length >= 180}, 'very long names are shown');
is($browser->js("return $wider"), '', 'very long names make nothing wider than the screen');
$browser->click('#totals .entry button');
shows_value("$only.length", 1, 'a tenant is chosen');
is($browser->js("return $wider"), '', 'a filter makes nothing wider than the screen');
nothing_broke('on a telephone');

$browser->quit;
is(stop_http($http), 0, 'spine-http ends');
$node->stop;
done_testing();
