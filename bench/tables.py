#!/usr/bin/env python3
"""Writes the figures into docs/BENCHMARKS.md, and the pictures beside it.

    bench/tables.py [FILE...]       default: build/bench/results.json build/bench/peers.json

What stands between the markers of a file is replaced. All figures must be of one commit and one
machine: otherwise nothing is written.
"""
import json
import os
import re
import sys

import chart
from bench import judge
from private import TREE
from results import table

DOCS = os.path.join(TREE, 'docs')
PAGE = DOCS + '/BENCHMARKS.md'


def marked(name, text=None):
    """A section of the page, with its markers: what to look for, or what to write."""
    begin, end = '<!-- figures: %s -->\n' % name, '<!-- end of figures -->\n'
    if text is None:
        return re.compile(re.escape(begin) + '.*?' + re.escape(end), re.S)
    return begin + text + end


def of_one_kind(found):
    kinds = {(f['about']['commit'], f['about']['machine']['cpu'], f['about']['machine']['cores']) for f in found}
    if len(kinds) > 1:
        sys.exit('tables: these figures are not of one commit and one machine: %s' % sorted(kinds))
    if any(commit.endswith('-dirty') for commit, _, _ in kinds):
        print('tables: the figures are of a tree that is not committed', file=sys.stderr)


def introduction(found):
    about = found['about']
    machine, versions = about['machine'], about['versions']
    lines = ['Commit `{}`, {}: {}, {} cores, {:,.0f} GB. {}.'.format(
        about['commit'], about['at'], machine['cpu'], machine['cores'], machine['memory_mb'] / 1024,
        ', '.join('%s %s' % (name, re.search(r'\d[\d.]*\d', version).group()) for name, version in versions.items()
                  if isinstance(version, str)))]
    parts = about.get('parts', {})
    if parts:
        lines.append('Parts: ' + ', '.join('*{}* ({}, {} run{}, {:.1f} min)'.format(
            part, of['size'], of['runs'], 's'[of['runs'] == 1:], of['seconds'] / 60) for part, of in parts.items()) + '.')
    said = judge(found['table'])
    lines.append(said[0].upper() + said[1:] + '.')
    for peer, reason in about.get('left_out', {}).items():
        lines.append('Left out: %s (%s)' % (peer, reason))
    return '\n\n'.join(lines)


def section(found):
    parts = dict.fromkeys(row['part'] for row in found['table'])
    pictures = ['![%s](bench-%s.svg)' % (part, part) for part in parts]
    return '\n\n'.join([introduction(found), table(found['table']), *pictures]) + '\n'


def main(paths):
    found = {}
    for path in paths:
        with open(path) as file:
            found[os.path.basename(path).removesuffix('.json')] = json.load(file)
    of_one_kind(found.values())
    with open(PAGE) as file:
        page = file.read()
    for name, one in found.items():
        page, n = marked(name).subn(lambda _: marked(name, section(one)), page)
        if n != 1:
            sys.exit('tables: docs/BENCHMARKS.md has no place for ' + name)
    for path in paths:
        chart.main(path, DOCS)
    with open(PAGE, 'w') as file:
        file.write(page)


if __name__ == '__main__':
    main(sys.argv[1:] or [path for path in (TREE + '/build/bench/results.json', TREE + '/build/bench/peers.json')
                          if os.path.exists(path)])
