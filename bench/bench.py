#!/usr/bin/env python3
"""The benchmark: see docs/BENCHMARKS.md.

    bench/bench.py [PART...]    drain latency produce growth http start; all of them

Each part compares spine with a limit or a peer in the same run. The benchmark prints a
table of ratios, and leaves everything that it measured in build/bench/results.json. The
environment may set RUNS (how often each part is measured) and SIZE (quick, normal or
large). The benchmark writes only to build/ and, for root, to a directory under /var/tmp.
"""
import datetime
import os
import platform
import re
import signal
import subprocess
import sys

import drain
import growth
import latency
import peer_http
import produce
import start
from private import CONFIGURATION, TREE, Private, busy_share, memory_mb, say, shared_buffers_mb
from results import Results

PARTS = {'drain': drain, 'latency': latency, 'produce': produce, 'growth': growth, 'http': peer_http,
         'start': start}

SIZES = {
    'quick': {
        'runs': 1, 'drain_events': 200_000, 'latency_seconds': 3, 'latency_rates': (100, 1000, 5000, 20000),
        'produce_events': 200_000, 'growth_steps': (200_000, 1_000_000), 'growth_drain': 100_000,
        'http_seconds': 1, 'http_events': 100_000},
    'normal': {
        'runs': 3, 'drain_events': 1_000_000, 'latency_seconds': 8, 'latency_rates': (100, 1000, 5000, 20000),
        'produce_events': 1_000_000, 'growth_steps': (1_000_000, 10_000_000, 50_000_000), 'growth_drain': 500_000,
        'http_seconds': 3, 'http_events': 500_000},
    'large': {
        'runs': 3, 'drain_events': 5_000_000, 'latency_seconds': 30, 'latency_rates': (100, 1000, 5000, 20000),
        'produce_events': 2_000_000, 'growth_steps': (1_000_000, 10_000_000, 50_000_000), 'growth_drain': 1_000_000,
        'http_seconds': 10, 'http_events': 1_000_000},
}


def first_line(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0].strip() if done.stdout else 'unknown'


def describe(private, size, sizes, busy):
    with open('/proc/cpuinfo') as file:
        models = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    jars = os.listdir(TREE + '/build/kafka') if os.path.isdir(TREE + '/build/kafka') else []
    kafka = [m.group(1) for m in (re.match(r'kafka-clients-([0-9.]+)\.jar', jar) for jar in jars) if m]
    return {
        'at': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'commit': first_line('git', '-c', 'safe.directory=' + TREE, '-C', TREE, 'describe', '--always', '--dirty'),
        'machine': {'cpu': models[0] if models else platform.machine(), 'cores': os.cpu_count(),
                    'memory_mb': memory_mb(), 'kernel': platform.release(),
                    'busy_before': round(busy, 3), 'load_before': os.getloadavg()[0]},
        'versions': {'postgresql': private.ask_pg_config('--version'),
                     'librdkafka': first_line('pkg-config', '--modversion', 'rdkafka'),
                     'kafka': kafka[0] if kafka else None,
                     'java': first_line('java', '-XX:-UsePerfData', '-version') if kafka else None,
                     'python': platform.python_version()},
        'size': size, 'sizes': sizes,
        'postgresql.conf': CONFIGURATION.format(shared_buffers=shared_buffers_mb()).split('\n')[1:-1],
    }


def show(about):
    machine, versions = about['machine'], about['versions']
    print('spine %s, %s\n%s, %d cores, %d MB, Linux %s\n%s' % (
        about['commit'], about['at'], machine['cpu'], machine['cores'], machine['memory_mb'], machine['kernel'],
        ', '.join('%s %s' % item for item in versions.items() if item[1])))
    if machine['busy_before'] > 0.05:
        print('other processes used %.0f %% of the machine before the start: compare ratios, do not trust seconds'
              % (100 * machine['busy_before']))


def main(parts):
    size = os.environ.get('SIZE') or 'normal'
    unknown = [part for part in parts if part not in PARTS]
    if unknown or size not in SIZES:
        sys.exit('bench: there is no %s' % ' '.join(unknown or [size]))
    sizes = dict(SIZES[size])
    sizes['runs'] = int(os.environ.get('RUNS') or sizes['runs'])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    busy = busy_share()
    private = Private()
    try:
        private.build()
        private.start_server()
        if any(part != 'start' for part in parts):
            private.start_kafka()
        results = Results(describe(private, size, sizes, busy))
        show(results.about)
        output = os.path.join(TREE, 'build', 'bench')
        os.makedirs(output, exist_ok=True)
        for part in parts:
            before = len(results.rows)
            try:
                PARTS[part].run(private, results, sizes, sizes['runs'])
            finally:
                results.about['machine']['load_after'] = os.getloadavg()[0]
                results.save(output + '/results.json')
            print(results.table(before), flush=True)
    except BaseException:
        private.keep_log()
        raise
    finally:
        private.close()
    print()
    show(results.about)
    print('medians of %d runs; a ratio is the median of the ratios within each run\n' % sizes['runs'])
    print(results.table())
    print('\nall results: build/bench/results.json')


if __name__ == '__main__':
    try:
        main(sys.argv[1:] or list(PARTS))
    except KeyboardInterrupt:
        sys.exit(130)
