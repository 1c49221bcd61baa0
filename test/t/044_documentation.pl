# The examples of README and docs/PIPELINES.md work as written, and print what stands
# below them.
#
# Broken when an example has an error, or its result is not the one that the page shows.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use SpineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = spine_node('main', conf => "timezone = 'UTC'\n");

# The fenced blocks of a page, from one heading to the next one of that rank or to the end:
# [language, text].
sub blocks
{
	my ($page, $heading) = @_;
	my $text = slurp_file("$top/$page");

	if (defined $heading)
	{
		($text) = $text =~ /^## \Q$heading\E\n(.*?)(?=^## |\z)/ms or die "$page has no section $heading";
	}
	my @blocks;
	push @blocks, [ $1, $2 ] while $text =~ /^```(\w*)\n(.*?)^```$/msg;
	return @blocks;
}

# Runs a block of SQL as psql shows it; lines end without spaces.
sub show
{
	my ($database, $sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr($database), '-v', 'ON_ERROR_STOP=1',
			'-P', 'footer=off', '-f', '-' ], '<', \$sql, '>', \$out, '2>', \$err)
	  or return "psql failed: $err";
	$out =~ s/ +$//mg;
	return $out;
}

# Runs the SQL of a page in a database of its own.  What follows a block is the end of its output.
sub run_page
{
	my ($page, $heading) = @_;
	my $database = lc("doc_$page" =~ s/\W/_/gr);
	my @blocks = blocks($page, $heading);
	my $name = $page . (defined $heading ? ", $heading" : '');

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION spine');
	cmp_ok(scalar(grep { $_->[0] eq 'sql' } @blocks), '>', 0, "$name has examples");
	while (my $block = shift @blocks)
	{
		my ($language, $sql) = @$block;
		next if $language ne 'sql';

		my ($first) = $sql =~ /^\s*(.*)$/m;
		my $out = show($database, $sql);
		unlike($out, qr/^psql failed/, "$name: $first");
		next unless @blocks && $blocks[0][0] eq '';
		my @expected = split /\n/, (shift @blocks)->[1] =~ s/ +$//mgr;
		my @lines = split /\n/, $out;
		@lines = splice @lines, -@expected if @lines > @expected;
		is(join("\n", @lines), join("\n", @expected), "$name: the result of $first");
	}
	return;
}

run_page('docs/PIPELINES.md');
run_page('README.md', 'Your own topic, your own table');

done_testing();
