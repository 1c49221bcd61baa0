# A real browser for the tests: headless Chromium, driven by chromedriver over the W3C
# WebDriver protocol.  Needs only core Perl.
#
#	my $browser = Browser->new(window => [ 1280, 800 ], dark => 0);
#	$browser->go("http://localhost:$port/");
#	$browser->wait_for('document.querySelector("#orders tr")', 'a first order');
#	is_deeply([ $browser->console_errors ], [], 'nothing broke');
package Browser;

use strict;
use warnings;
use Carp qw(croak);
use Cwd qw(abs_path);
use File::Temp ();
use HTTP::Tiny ();
use IPC::Open3 qw(open3);
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

our $driver_program = '/usr/bin/chromedriver';
our $browser_program = '/usr/bin/chromium';

# The key under which WebDriver returns elements.
my $element_key = 'element-6066-11e4-a52e-4f735466cecf';

# Keys without a character, for press().  Shift+Tab is 'Shift' and 'Tab'.
my %keys = (
	Backspace => "\x{E003}",
	Tab => "\x{E004}",
	Enter => "\x{E007}",
	Shift => "\x{E008}",
	Escape => "\x{E00C}",
	Space => ' ',
	End => "\x{E010}",
	Home => "\x{E011}",
	ArrowUp => "\x{E013}",
	ArrowDown => "\x{E015}",
	Delete => "\x{E017}");

# True when a browser is installed; otherwise tests skip.
sub available
{
	return -x $driver_program && -x $browser_program;
}

# Options: window => [ width, height ] of the page itself; dark => 1 for
# prefers-color-scheme: dark; reduced_motion => 1.
sub new
{
	my ($class, %options) = @_;
	my ($width, $height) = @{ $options{window} // [ 1280, 800 ] };
	my $self = bless {
		# quit() finds what is left of the browser by the profile's name
		home => File::Temp->newdir('spine-browser-XXXXXX', TMPDIR => 1),
		http => HTTP::Tiny->new(timeout => 60, proxy => undef,
			http_proxy => undef, https_proxy => undef, all_proxy => undef),
		json => JSON::PP->new->utf8->allow_nonref,
		owner => $$,
	}, $class;

	$self->{profile} = abs_path("$self->{home}") . '/profile';
	$self->_start_driver;
	$self->_start_session("$width,$height");

	# A window has a minimum width and a frame; the page's view has neither.
	$self->cdp('Emulation.setDeviceMetricsOverride',
		{ width => 0 + $width, height => 0 + $height, deviceScaleFactor => 1,
			mobile => JSON::PP::false });
	$self->cdp('Emulation.setEmulatedMedia', { features => [
		{ name => 'prefers-color-scheme', value => $options{dark} ? 'dark' : 'light' },
		{ name => 'prefers-reduced-motion',
			value => $options{reduced_motion} ? 'reduce' : 'no-preference' } ] });
	return $self;
}

sub _start_driver
{
	my ($self) = @_;
	my $log = "$self->{home}/chromedriver.log";

	# The user's home directory and desktop settings must not matter.
	local %ENV = (%ENV, HOME => "$self->{home}");
	delete @ENV{ grep { /^(XDG_|DBUS_|DISPLAY$|WAYLAND_)/ } keys %ENV };

	# Output goes to a file, because nobody would read a pipe once the port is known.
	open(my $output, '>', $log) or croak "could not open $log: $!";
	open(my $nothing, '<', '/dev/null') or croak "could not open /dev/null: $!";
	$self->{driver} = open3('<&' . fileno($nothing), '>&' . fileno($output), undef,
		$driver_program, '--port=0');

	my $deadline = time + 30;
	while (time < $deadline)
	{
		open(my $input, '<', $log) or croak "could not read $log: $!";
		my $said = join '', <$input>;
		if ($said =~ /started successfully on port (\d+)/)
		{
			$self->{url} = "http://127.0.0.1:$1";
			return;
		}
		if (waitpid($self->{driver}, WNOHANG) != 0)
		{
			delete $self->{driver};
			croak "chromedriver ended at once: $said";
		}
		usleep 20_000;
	}
	croak 'chromedriver did not name its port';
}

sub _start_session
{
	my ($self, $size) = @_;
	my $answer = $self->_ask(POST => '/session', { capabilities => { alwaysMatch => {
		'goog:loggingPrefs' => { browser => 'ALL' },
		'goog:chromeOptions' => {
			binary => $browser_program,
			args => [ qw(--headless=new --no-sandbox --disable-gpu --disable-quic
				  --no-first-run --disable-background-networking
				  --disable-component-update --disable-sync
				  --disable-dev-shm-usage --no-proxy-server),
				"--window-size=$size", "--user-data-dir=$self->{profile}" ] } } } });

	$self->{session} = "/session/$answer->{sessionId}";
	return;
}

# Runs one WebDriver command.  Returns its value, or dies with the driver's reason.
sub _ask
{
	my ($self, $method, $path, $body) = @_;
	my %request = (headers => { 'Content-Type' => 'application/json; charset=utf-8' });

	$request{content} = $self->{json}->encode($body // {}) if $method eq 'POST';
	my $response = $self->{http}->request($method, "$self->{url}$path", \%request);
	my $answer = eval { $self->{json}->decode($response->{content}) };

	croak "$method $path: $response->{status} $response->{content}" unless ref $answer eq 'HASH';
	croak "$method $path: $answer->{value}{error}: $answer->{value}{message}"
	  unless $response->{success};
	return $answer->{value};
}

sub _in_session
{
	my ($self, $method, $path, $body) = @_;

	return $self->_ask($method, "$self->{session}$path", $body);
}

sub _find
{
	my ($self, $css) = @_;

	return $self->_in_session(POST => '/element', { using => 'css selector', value => $css });
}

sub _element
{
	my ($self, $css) = @_;

	return '/element/' . $self->_find($css)->{$element_key};
}

# Runs a command of the Chrome DevTools Protocol.
sub cdp
{
	my ($self, $command, $parameters) = @_;

	return $self->_in_session(POST => '/goog/cdp/execute',
		{ cmd => $command, params => $parameters // {} });
}

sub go
{
	my ($self, $url) = @_;

	$self->_in_session(POST => '/url', { url => $url });
	return;
}

sub reload
{
	my ($self) = @_;

	$self->_in_session(POST => '/refresh');
	return;
}

sub back
{
	my ($self) = @_;

	$self->_in_session(POST => '/back');
	return;
}

sub forward
{
	my ($self) = @_;

	$self->_in_session(POST => '/forward');
	return;
}

# Runs the body of a function in the page: js('return arguments[0] + 1', 2).
sub js
{
	my ($self, $script, @arguments) = @_;

	return $self->_in_session(POST => '/execute/sync',
		{ script => $script, args => \@arguments });
}

# Waits until a JavaScript expression is true, and returns its value.  On timeout, dies
# with what it waited for and the expression's last value.
sub wait_for
{
	my ($self, $expression, $what, $timeout) = @_;
	my $deadline = time + ($timeout // 30);
	my ($value, $trouble);

	while (1)
	{
		# an exception often means that the page is still loading
		$value = eval { $self->js("return ($expression);") };
		$trouble = $@;
		return $value if !$trouble && $value;
		last if time >= $deadline;
		usleep 50_000;
	}
	$value = $trouble || $self->{json}->encode($value);
	croak 'timed out waiting for ' . ($what // $expression) . ": $value";
}

# Types text into a field, after the text that it has.
sub type
{
	my ($self, $css, $text) = @_;

	$self->_in_session(POST => $self->_element($css) . '/value', { text => $text });
	return;
}

sub click
{
	my ($self, $css) = @_;

	$self->_in_session(POST => $self->_element($css) . '/click');
	return;
}

# Moves the pointer to the middle of an element, and leaves it there.
sub hover
{
	my ($self, $css) = @_;

	$self->_in_session(POST => '/actions', { actions => [ {
		type => 'pointer', id => 'mouse', actions => [
			{ type => 'pointerMove', origin => $self->_find($css), x => 0, y => 0 } ] } ] });
	return;
}

# Presses keys in an element, or, if the element is undef, wherever the focus is.
# Several keys are held down together.
sub press
{
	my ($self, $css, @names) = @_;
	my @characters = map { $keys{$_} // $_ } @names;

	$self->js('document.querySelector(arguments[0]).focus()', $css) if defined $css;
	$self->_in_session(POST => '/actions', { actions => [ {
		type => 'key', id => 'keyboard', actions => [
			(map { { type => 'keyDown', value => $_ } } @characters),
			(map { { type => 'keyUp', value => $_ } } reverse @characters) ] } ] });
	return;
}

# Writes the visible part of the page as a PNG.
sub screenshot
{
	my ($self, $file) = @_;

	open(my $output, '>:raw', $file) or croak "could not open $file: $!";
	print $output decode_base64($self->_in_session(GET => '/screenshot'));
	close $output or croak "could not write $file: $!";
	return;
}

# The errors in the page since the last call: script errors, and refusals of the content
# security policy.  The log also has answers of 503 and servers that are away.  Those are
# not the page's fault, and are returned only with network => 1.
sub console_errors
{
	my ($self, %options) = @_;
	my $entries = $self->_in_session(POST => '/se/log', { type => 'browser' });

	return map { "$_->{source}: $_->{message}" }
	  grep { $_->{level} eq 'SEVERE' && ($options{network} || $_->{source} ne 'network') }
	  @$entries;
}

sub quit
{
	my ($self) = @_;

	# A child process of the test must not end the browser of its parent.
	return if $self->{owner} != $$;

	# waitpid would set the exit code that the test is about to end with.
	local ($?, $@, $!);
	eval { $self->_ask(DELETE => delete $self->{session}) } if $self->{session};
	if (my $driver = delete $self->{driver})
	{
		kill TERM => $driver;
		for (1 .. 100)
		{
			last if waitpid($driver, WNOHANG) != 0;
			kill KILL => $driver if $_ == 50;
			usleep 20_000;
		}
	}

	# A browser that outlives its driver would still write to the profile.
	my $deadline = time + 5;
	while (time < $deadline)
	{
		my @left = $self->_browser_processes or last;
		kill KILL => @left;
		usleep 20_000;
	}
	delete $self->{home};
	return;
}

sub _browser_processes
{
	my ($self) = @_;
	my @found;

	return unless defined $self->{profile};
	for my $file (glob '/proc/[0-9]*/cmdline')
	{
		open(my $input, '<', $file) or next;
		local $/;
		my $command = <$input> // '';
		push @found, $file =~ /(\d+)/
		  if index($command, "--user-data-dir=$self->{profile}") >= 0;
	}
	return @found;
}

sub DESTROY
{
	my ($self) = @_;

	$self->quit;
	return;
}

1;
