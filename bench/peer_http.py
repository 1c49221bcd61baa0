"""How many requests spine-http answers in a second, compared with FastAPI and asyncpg
that run the same SQL on the same cores, in one process and in two.

There are two situations. In the first nothing is written, so spine-http may repeat an
answer (it keeps an answer until a transaction that writes has ended). In the second, 1,000
events a second arrive. Clients that wait and ask the same share an answer. So there is
also a case where each request for the orders of a tenant is different.
"""
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

from drain import TENANTS, drain, fill_topic
from private import BENCH, TREE, say

DATABASE = 'http'
TOPIC = 'http'
PATHS = ('/orders', '/orders?tenant=tenant-001', '/stats', '/metrics', 'another each time')
CONNECTIONS = 16
ARRIVING = 1000
ORDERS = 2000
UNITS = {'us': 1e-3, 'ms': 1, 's': 1e3}


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def make_peer():
    """The python of a venv with the peer's packages; None if they cannot be downloaded."""
    venv = os.path.join(TREE, 'build', 'bench', 'venv')
    python = venv + '/bin/python'
    done = os.path.exists(python) and subprocess.run([python, '-c', 'import fastapi, asyncpg, uvicorn']).returncode == 0
    if not done:
        say('http: installing the peer into build/bench/venv')
        done = (subprocess.run([sys.executable, '-m', 'venv', '--clear', venv]).returncode == 0 and
                subprocess.run([python, '-m', 'pip', 'install', '-q', '-r', BENCH + '/requirements.txt']).returncode == 0)
    if not done:
        say('http: PyPI cannot be reached: spine-http is measured without its peer')
        return None
    return python


def peer_versions(python):
    code = "import importlib.metadata as m; print(' '.join(p + ' ' + m.version(p) for p in ('fastapi', 'asyncpg', 'uvicorn')))"
    return subprocess.run([python, '-c', code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def let_spine_http_read(private, database):
    private.sql("""CREATE ROLE spine_http LOGIN;
        GRANT SELECT ON events, current_orders, spine_order_totals TO spine_http;
        GRANT EXECUTE ON FUNCTION spine_readiness(), spine_metrics_text() TO spine_http""", database)


def start_spine_http(private, database, port):
    dsn = "host='%s' port=5432 dbname=%s user=spine_http" % (private.environment['PGHOST'], database)
    return subprocess.Popen([private.bindir + '/spine-http', '--port=%d' % port, '--log-format=quiet', '--dbname=' + dsn])


def start_peer(private, python, port, processes):
    dsn = 'postgresql://spine_http@/%s?host=%s&port=5432' % (DATABASE, private.environment['PGHOST'])
    return subprocess.Popen([python, '-m', 'uvicorn', 'peer:app', '--port', str(port), '--workers', str(processes),
                             '--no-access-log', '--log-level', 'warning'],
                            cwd=BENCH, env=dict(os.environ, PEER_DSN=dsn, PYTHONDONTWRITEBYTECODE='1'))


def wait_until_up(port, server):
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError('an HTTP server did not start')
        try:
            return urllib.request.urlopen('http://127.0.0.1:%d/stats' % port, timeout=5).read()
        except OSError:
            time.sleep(0.1)
    raise RuntimeError('an HTTP server does not answer')


def wrk(port, path, seconds, connections=CONNECTIONS):
    """path may also be "another each time"."""
    command = ['wrk', '-t1', '-c%d' % connections, '-d%ds' % seconds, '--latency']
    if path.startswith('/'):
        command += ['http://127.0.0.1:%d%s' % (port, path)]
    else:
        command += ['-s', BENCH + '/another.lua', 'http://127.0.0.1:%d/' % port, '--', str(TENANTS)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if 'Non-2xx' in text or 'Socket errors' in text:
        raise RuntimeError('some requests failed:\n' + text)
    found = {'requests_per_second': float(re.search(r'Requests/sec:\s+([\d.]+)', text).group(1))}
    for share in (50, 99):
        value, unit = re.search(r'^\s+%d%%\s+([\d.]+)(us|ms|s)$' % share, text, re.M).groups()
        found['p%d_ms' % share] = round(float(value) * UNITS[unit], 3)
    return found


def start_arriving(private, topic, orders, seconds, seed):
    return private.start_load('pace', topic, int(ARRIVING * seconds), 3, TENANTS, orders, seed, ARRIVING,
                              stdout=subprocess.DEVNULL)


def measure_spine_http(private, database, topic, path, orders, seconds, seed):
    """Measures one client that asks again and again while events arrive."""
    port = free_port()
    server = start_spine_http(private, database, port)
    arriving = start_arriving(private, topic, orders, seconds + 30, seed)
    try:
        wait_until_up(port, server)
        with private.watch() as watch:
            found = wrk(port, path, seconds, connections=1)
        return found | {'machine': watch.found}
    finally:
        arriving.kill()
        arriving.wait()
        server.terminate()
        server.wait()


def run(private, results, sizes, runs):
    private.start_kafka()
    python = make_peer()
    if python:
        results.about['versions']['peer'] = peer_versions(python)
    private.load('create', TOPIC, 3)
    private.new_database(DATABASE, topic=TOPIC)
    fill_topic(private, TOPIC, sizes['http_events'], 3, create=False, orders=ORDERS)
    drain(private, DATABASE)
    let_spine_http_read(private, DATABASE)
    private.sql("SELECT spine_resume('orders'); VACUUM ANALYZE events, current_orders", DATABASE)

    starters = {'spine': lambda port: start_spine_http(private, DATABASE, port)}
    if python:
        starters['peer, 1 process'] = lambda port: start_peer(private, python, port, 1)
        starters['peer, 2 processes'] = lambda port: start_peer(private, python, port, 2)
    seconds = sizes['http_seconds']
    found = {}
    for number in range(runs):
        for situation in ('quiet', 'events arriving'):
            for name, starter in list(starters.items())[::-1 if number % 2 else 1]:
                # one at a time: even idle neighbours would share the cores
                port = free_port()
                server = starter(port)
                arriving = None
                try:
                    wait_until_up(port, server)
                    if situation != 'quiet':
                        arriving = start_arriving(private, TOPIC, ORDERS, len(PATHS) * (seconds + 1) + 30,
                                                  int(time.time() * 1000))
                    time.sleep(1)       # until the peer's other process is also up
                    for path in PATHS:
                        with private.watch() as watch:
                            one = wrk(port, path, seconds)
                        one['machine'] = watch.found
                        found.setdefault((situation, path), {}).setdefault(name, []).append(one)
                        results.add_raw('http', situation=situation, path=path, server=name, run=number + 1, **one)
                finally:
                    if arriving:
                        arriving.kill()
                        arriving.wait()
                    server.terminate()
                    server.wait()
            say('http: %s, run %d: /orders %s' % (situation, number + 1, ', '.join(
                '%s %.0f/s' % (name, r[-1]['requests_per_second']) for name, r in found[situation, '/orders'].items())))
    for (situation, path), servers in found.items():
        rates = {name: [r['requests_per_second'] for r in rs] for name, rs in servers.items()}
        case = '%s, %s' % (path.replace('tenant-001', 'T').replace('another', '/orders, another'), situation)
        if len(rates) == 1:
            results.compare('http', case, 'requests/s', rates['spine'], ours=servers['spine'])
        for name in list(rates)[1:]:
            results.compare('http', case, 'requests/s', rates['spine'], 'FastAPI, ' + name[6:], rates[name],
                            servers['spine'], servers[name])
    private.drop_database(DATABASE)
    private.sql('DROP ROLE spine_http')
