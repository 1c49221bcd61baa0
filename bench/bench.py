#!/usr/bin/env python3
"""The benchmark: see docs/BENCHMARKS.md.

    bench/bench.py [PART...]    drain append latency latency-busy produce growth http start; all of them
    bench/bench.py scale        growth to 100 million events, which takes longer than all the others

Each part compares spine with a limit or a peer in the same run. The benchmark prints a
table of ratios, and leaves everything that it measured in build/bench/results.json. Parts that
are measured later, by the same program on the same machine, are added to it. The environment
may set RUNS (how often each part is measured), SIZE (tiny, quick, normal or large) and, for
scale, EVENTS and ORDERS. The benchmark writes only to build/ and, for root, to a directory
under /var/tmp.
"""
import datetime
import functools
import os
import platform
import re
import signal
import subprocess
import sys
import time

import append
import drain
import growth
import latency
import peer_http
import produce
import scale
import start
from private import CONFIGURATION, TREE, Private, memory_mb, say, shared_buffers_mb
from quiet import DISTURBED, Watch
from results import Results

PARTS = {'drain': drain.run, 'append': append.run, 'latency': latency.run,
         'latency-busy': functools.partial(latency.run, is_busy=True), 'produce': produce.run, 'growth': growth.run,
         'http': peer_http.run, 'start': start.run, 'scale': scale.run}
ONLY_IF_ASKED_FOR = ('scale',)

RATES = (100, 1000, 5000, 20000)
CHEAP = ('drain', 'append', 'latency', 'latency-busy', 'produce', 'start')
SIZES = {
    'tiny': {
        'runs': {}, 'drain_events': 20_000, 'latency_seconds': 2, 'latency_rates': RATES[:2],
        'produce_events': 20_000, 'growth_steps': (20_000, 100_000), 'growth_drain': 20_000,
        'http_seconds': 1, 'http_events': 20_000, 'scale_events': 200_000},
    'quick': {
        'runs': {}, 'drain_events': 200_000, 'latency_seconds': 3, 'latency_rates': RATES,
        'produce_events': 200_000, 'growth_steps': (200_000, 1_000_000), 'growth_drain': 100_000,
        'http_seconds': 1, 'http_events': 100_000, 'scale_events': 1_000_000},
    'normal': {
        'runs': dict.fromkeys(CHEAP, 3), 'drain_events': 1_000_000, 'latency_seconds': 6, 'latency_rates': RATES,
        'produce_events': 1_000_000, 'growth_steps': (1_000_000, 10_000_000), 'growth_drain': 500_000,
        'http_seconds': 2, 'http_events': 500_000, 'scale_events': 100_000_000},
    'large': {
        'runs': dict.fromkeys(CHEAP, 5), 'drain_events': 5_000_000, 'latency_seconds': 30, 'latency_rates': RATES,
        'produce_events': 2_000_000, 'growth_steps': (1_000_000, 10_000_000, 50_000_000), 'growth_drain': 1_000_000,
        'http_seconds': 10, 'http_events': 1_000_000, 'scale_events': 100_000_000},
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
                    'busy_before': busy, 'load_before': os.getloadavg()[0]},
        'versions': {'postgresql': private.ask_pg_config('--version'),
                     'librdkafka': first_line('pkg-config', '--modversion', 'rdkafka'),
                     'kafka': kafka[0] if kafka else None,
                     'java': first_line('java', '-XX:-UsePerfData', '-version') if kafka else None,
                     'python': platform.python_version()},
        'size': size, 'sizes': sizes, 'parts': {},
        'postgresql.conf': CONFIGURATION.format(shared_buffers=shared_buffers_mb()).split('\n')[1:-1],
    }


def show(about):
    machine, versions = about['machine'], about['versions']
    print('spine %s, %s\n%s, %d cores, %d MB, Linux %s\n%s' % (
        about['commit'], about['at'], machine['cpu'], machine['cores'], machine['memory_mb'], machine['kernel'],
        ', '.join('%s %s' % item for item in versions.items() if item[1])))
    if machine['busy_before'] > DISTURBED:
        print('other processes used %.0f %% of the machine before the start' % (100 * machine['busy_before']))


def judge(rows):
    """Says how far the figures can be believed."""
    found = [row['machine'] for row in rows if 'machine' in row]
    noisy = [m for m in found if m['others'] > DISTURBED or abs(m['pace']) > DISTURBED]
    if not noisy:
        return 'the machine was quiet: others never had more than %.0f %% of it' % (100 * DISTURBED)
    text = ('THE MACHINE WAS NOT QUIET in %d of %d comparisons: others had up to %.0f %% of it, and its pace '
            'differed by up to %.0f %% between two sides'
            % (len(noisy), len(found), 100 * max(m['others'] for m in found), 100 * max(abs(m['pace']) for m in found)))
    spreads = [max(row['ratios']) / min(row['ratios']) - 1 for row in rows if len(row.get('ratios', ())) > 1]
    if spreads:
        text += '; the ratios of one comparison differ by up to %.0f %%' % (100 * max(spreads))
    return text


def quiet_before():
    with Watch([]) as watch:
        time.sleep(2)
    return watch.found['others'] + watch.found['steal']


def main(parts):
    size = os.environ.get('SIZE') or 'normal'
    unknown = [part for part in parts if part not in PARTS]
    if unknown or size not in SIZES:
        sys.exit('bench: there is no %s' % ' '.join(unknown or [size]))
    sizes = SIZES[size]
    runs = {part: int(os.environ.get('RUNS') or sizes['runs'].get(part, 1)) for part in parts}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    busy = quiet_before()
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
        results.take_over(output + '/results.json', parts)
        for part in parts:
            before, began = len(results.rows), time.monotonic()
            try:
                PARTS[part](private, results, sizes, runs[part])
                results.about['parts'][part] = {'at': results.about['at'], 'size': size, 'runs': runs[part],
                                                'seconds': round(time.monotonic() - began)}
            finally:
                results.about['machine']['load_after'] = os.getloadavg()[0]
                results.save(output + '/results.json')
            print(results.table(before), flush=True)
            say('%s took %d s' % (part, time.monotonic() - began))
    except BaseException:
        private.keep_log()
        raise
    finally:
        private.close()
    print()
    show(results.about)
    print('medians of the runs; a ratio is the median of the ratios within each run\n')
    print(results.table())
    print('\n' + judge(results.rows))
    print('\nall results: build/bench/results.json')


if __name__ == '__main__':
    try:
        main(sys.argv[1:] or [part for part in PARTS if part not in ONLY_IF_ASKED_FOR])
    except KeyboardInterrupt:
        sys.exit(130)
