"""What the benchmark runs on: a private PostgreSQL with the spine of this tree, a real
Kafka, and the load generator, all in one directory that is removed afterwards.

PostgreSQL refuses to run as root. So when root runs the benchmark, the server belongs to
an unprivileged user. If that user cannot enter the tree, the directory is under /var/tmp.
"""
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time

from quiet import TICKS, Watch

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCH = os.path.join(TREE, 'bench')

# Both sides of every comparison run with these settings. A checkpoint in the middle of
# one side would matter more than what is compared, so there is one before each side.
CONFIGURATION = """
shared_preload_libraries = 'spine'
listen_addresses = ''
unix_socket_permissions = 0700
max_worker_processes = 24
max_connections = 60
cluster_name = 'spine bench'
shared_buffers = {shared_buffers}MB
max_wal_size = 16GB
checkpoint_timeout = 1h
maintenance_work_mem = 512MB
log_line_prefix = '%m [%p] %b '
"""


def say(text):
    print('==> ' + text, flush=True)


def memory_mb():
    with open('/proc/meminfo') as file:
        return int(file.readline().split()[1]) // 1024


def shared_buffers_mb():
    return min(memory_mb() // 4, 4096)


def server_command():
    """Returns the prefix of a command that runs as the server's user with a clean environment,
    and that user's name."""
    user, switch = pwd.getpwuid(os.getuid()).pw_name, []
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam('postgres').pw_name
        except KeyError:
            user = 'nobody'
        switch = ['setpriv', '--reuid=' + user, '--regid=%d' % pwd.getpwnam(user).pw_gid,
                  '--init-groups', '--']
    return switch + ['env', '-i', '-C', '/', 'PATH=' + os.environ['PATH'], 'HOME=/',
                     'LANG=C.UTF-8', 'LC_ALL=C.UTF-8'], user


def make_directory(as_server):
    """The path is as short as possible, because the directory will hold a socket."""
    base = os.path.join(TREE, 'build')
    os.makedirs(base, exist_ok=True)
    if len(base) > 60 or subprocess.run(as_server + ['test', '-x', base]).returncode:
        base = '/var/tmp'
    directory = tempfile.mkdtemp(prefix='spine-bench.', dir=base)
    os.chmod(directory, 0o755)
    return directory


class Private:
    """A server, a Kafka, and the commands for them."""

    def __init__(self):
        self.as_server, self.user = server_command()
        self.directory = make_directory(self.as_server)
        self.environment = {'PATH': os.environ['PATH'], 'LANG': 'C.UTF-8', 'PGUSER': 'postgres',
                            'PGHOST': os.path.join(self.directory, 'run'), 'PGPORT': '5432',
                            'HOME': self.directory, 'PGTZ': 'UTC', 'PGOPTIONS': '--client-min-messages=warning'}
        self.data = os.path.join(self.directory, 'data')
        self.log = os.path.join(self.directory, 'log')
        self.load_program = os.path.join(self.directory, 'load')
        self.copy_program = os.path.join(self.directory, 'copy')
        self.is_started = False
        self.kafka = None
        self.brokers = None

    # ---------------------------------------------------------------- setting up

    def build(self):
        say('making a private copy of PostgreSQL, and building spine')
        output = subprocess.run([TREE + '/tools/private-postgres.sh', self.directory + '/pg'],
                                check=True, stdout=subprocess.PIPE, text=True).stdout
        self.pg_config = output.split()[-1]
        self.bindir = self.ask_pg_config('--bindir')
        sources = self.directory + '/build'
        os.mkdir(sources)
        for name in ('pgxs.mk', 'spine.control', 'sql', 'src'):
            subprocess.run(['cp', '-R', os.path.join(TREE, name), sources], check=True)
        subprocess.run('rm -f src/*.o src/*/*.o', shell=True, check=True, cwd=sources)
        environment = {name: value for name, value in os.environ.items()
                       if name not in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL')}
        for goal in ('all', 'install'):
            subprocess.run(['make', '-s', '-j', str(os.cpu_count()), '-f', 'pgxs.mk',
                            'PG_CONFIG=' + self.pg_config, goal],
                           check=True, cwd=sources, env=environment)
        subprocess.run([os.environ.get('CC', 'cc'), '-O2', '-Wall', '-o', self.load_program,
                        BENCH + '/load.c', '-lrdkafka'], check=True)
        subprocess.run([os.environ.get('CC', 'cc'), '-O2', '-Wall', '-I' + self.ask_pg_config('--includedir'),
                        '-o', self.copy_program, BENCH + '/copy.c', '-lpq'], check=True)

    def ask_pg_config(self, option):
        return subprocess.run([self.pg_config, option], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.strip()

    def start_server(self):
        say('starting the server as user ' + self.user)
        for name in ('data', 'run'):
            os.mkdir(os.path.join(self.directory, name))
            shutil.chown(os.path.join(self.directory, name), self.user)
        with open(self.log, 'w'):
            shutil.chown(self.log, self.user)
        self.run_as_server(['initdb', '-D', self.data, '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8',
                            '--auth-local=trust', '--auth-host=reject'])
        settings = CONFIGURATION.format(shared_buffers=shared_buffers_mb())
        settings += "unix_socket_directories = '%s'\n" % self.environment['PGHOST']
        subprocess.run(self.as_server + ['tee', '-a', self.data + '/postgresql.conf'],
                       input=settings, text=True, check=True, stdout=subprocess.DEVNULL)
        self.is_started = True
        self.run_as_server(['pg_ctl', '-D', self.data, '-l', self.log, '-w', '-t', '60', 'start'])

    def run_as_server(self, command, check=True):
        subprocess.run(self.as_server + [os.path.join(self.bindir, command[0])] + command[1:],
                       check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start_kafka(self):
        """Starts Kafka once: later calls find it running."""
        if self.brokers:
            return
        say('starting Kafka')
        subprocess.run([TREE + '/tools/kafka.sh', 'get'], check=True)
        self.kafka = os.path.join(self.directory, 'kafka')
        environment = dict(os.environ, KAFKA_JAVA_OPTIONS='-Xmx1g -XX:TieredStopAtLevel=4')
        subprocess.run([TREE + '/tools/kafka.sh', 'start', self.kafka], check=True, env=environment,
                       stdout=subprocess.DEVNULL)
        with open(self.kafka + '/env') as file:
            addresses = dict(line.strip().split('=', 1) for line in file)
        self.brokers = addresses['KAFKA_PLAINTEXT']
        self.set("spine.brokers", self.brokers)

    def keep_log(self):
        """Keeps the log of the server, when something went wrong."""
        kept = os.path.join(TREE, 'build', 'bench', 'server.log')
        if os.path.exists(self.log):
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            shutil.copyfile(self.log, kept)
            say('the log of the server is kept: build/bench/server.log')

    def close(self):
        """Ends and removes everything, however far the start had come."""
        if self.kafka:
            subprocess.run([TREE + '/tools/kafka.sh', 'stop', self.kafka])
        if self.is_started:
            self.run_as_server(['pg_ctl', '-D', self.data, '-m', 'immediate', '-w', 'stop'], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------------- the server

    def psql(self, database='postgres', *options):
        return [os.path.join(self.bindir, 'psql'), '-X', '-q', '-A', '-t', '-F', '\t',
                '-v', 'ON_ERROR_STOP=1', '-d', database, *options]

    def sql(self, text, database='postgres', *options):
        """Runs each statement in a transaction of its own. Returns the rows, as lists of texts."""
        done = subprocess.run(self.psql(database, *options), input=text, env=self.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError('%s\npsql ended with %d\n%s' % (text, done.returncode, done.stderr))
        return [line.split('\t') for line in done.stdout.splitlines()]

    def value(self, text, database='postgres'):
        return self.sql(text, database)[-1][0]

    def set(self, name, value):
        self.sql("ALTER SYSTEM SET %s = '%s'; SELECT pg_reload_conf();" % (name, value))

    def new_database(self, name, **settings):
        """Makes a database with the extension and a paused pipeline."""
        self.sql('DROP DATABASE IF EXISTS %s WITH (FORCE); CREATE DATABASE %s;' % (name, name))
        for setting, value in dict(settings, enabled='off').items():
            self.sql("ALTER DATABASE %s SET spine.%s = '%s'" % (name, setting, value))
        self.sql('CREATE EXTENSION spine', name)
        self.sql("SELECT spine_pause('orders'); ALTER DATABASE %s SET spine.enabled = on; "
                 "SELECT pg_reload_conf();" % name, name)

    def drop_database(self, name):
        self.sql('DROP DATABASE IF EXISTS %s WITH (FORCE)' % name)

    def worker_pids(self, database):
        return [int(row[0]) for row in self.sql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'spine worker' AND datname = '%s'" % database)]

    def pause(self, database):
        """Pauses the pipeline. Returns when the workers are gone."""
        self.sql("SELECT spine_pause('orders')", database)
        while self.worker_pids(database):
            time.sleep(0.05)

    def postmaster_pid(self):
        with open(self.data + '/postmaster.pid') as file:
            return int(file.readline())

    def kafka_pid(self):
        with open(self.kafka + '/pid') as file:
            return int(file.read())

    def watch(self):
        """To put around a measurement: says afterwards what else the machine did."""
        return Watch([self.postmaster_pid()] + ([self.kafka_pid()] if self.kafka else []))

    def follow(self, database):
        """Follows the memory of a worker until end() is called."""
        return MemoryPeak(self, database)

    # ------------------------------------------------------------------- the load

    def load(self, *arguments):
        done = subprocess.run([self.load_program, self.brokers] + [str(a) for a in arguments],
                              check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout) if done.stdout else None

    def start_load(self, *arguments, **options):
        return subprocess.Popen([self.load_program, self.brokers] + [str(a) for a in arguments],
                                text=True, **options)


def cpu_seconds(pid):
    """The CPU time of a process and all its threads, including those that have ended."""
    try:
        with open('/proc/%d/stat' % pid) as file:
            fields = file.read().rpartition(')')[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_kb(pid, *names):
    with open('/proc/%d/status' % pid) as file:
        found = dict(line.split(':', 1) for line in file)
    return [int(found[name].split()[0]) for name in names]


class MemoryPeak(threading.Thread):
    """The peak memory of a database's workers: their own memory (RssAnon, read ten times a
    second), and everything that they ever touched, including shared buffers (VmHWM)."""

    def __init__(self, private, database):
        super().__init__(daemon=True)
        self.private, self.database = private, database
        self.own_kb = self.all_kb = 0
        self.over = threading.Event()
        self.start()

    def run(self):
        pids = []
        while not self.over.wait(0.1):
            try:
                pids = pids or self.private.worker_pids(self.database)
                for pid in pids:
                    own, everything = memory_kb(pid, 'RssAnon', 'VmHWM')
                    self.own_kb, self.all_kb = max(self.own_kb, own), max(self.all_kb, everything)
            except (OSError, KeyError, RuntimeError):   # has ended, or is ending
                pids = []

    def end(self):
        self.over.set()
        self.join()
        return {'own_mb': round(self.own_kb / 1024, 1), 'all_mb': round(self.all_kb / 1024, 1)}
