#!/usr/bin/env python3
"""Draws a run: bench/chart.py RESULTS.json DIRECTORY

Writes one bench-PART.svg for each part: bars, of which spine's is above what it is compared with,
on a scale of the unit; for latency, histograms of how long the events waited; for scale, lines
over the growth. Grey and blue are legible on a white page and on a black one.
"""
import html
import json
import math
import os
import sys

BAR, GAP, WIDTH, CHARACTER = 14, 16, 360, 6.6      # pixels; CHARACTER: about the width of a character of size 12
SPINE, OTHER, TEXT = '#3b82c4', '#9a9a9a', '#808080'


def text(x, y, words, anchor='start'):
    return '<text x="%d" y="%d" text-anchor="%s">%s</text>' % (x, y, anchor, html.escape(words))


def number(value):
    return '{:,.0f}'.format(value) if value >= 100 else '{:,.2f}'.format(value)


def bar(x, y, value, longest, color, name):
    length = max(1, round(WIDTH * value / longest))
    return ('<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>' % (x, y, length, BAR, color) +
            text(x + length + 6, y + BAR - 3, name))


def draw(part, rows):
    longest = {}
    for row in rows:
        longest[row['unit']] = max(longest.get(row['unit'], 0), row['spine_median'], row.get('others_median', 0))
    labels = ['%s (%s)' % (row['case'], row['unit']) for row in rows]
    others = ['%s  %s' % (number(row['others_median']), row['against']) if 'ratio' in row else '' for row in rows]
    x = 20 + round(CHARACTER * max(len(label) for label in labels))
    y, shapes = 10, []
    for row, label, other in zip(rows, labels, others):
        shapes.append(text(x - 10, y + BAR, label, 'end'))
        shapes.append(bar(x, y, row['spine_median'], longest[row['unit']], SPINE, number(row['spine_median'])))
        if other:
            shapes.append(bar(x, y + BAR + 1, row['others_median'], longest[row['unit']], OTHER, other))
        y += 2 * BAR + GAP
    width = x + WIDTH + 20 + round(CHARACTER * max(len(other) for other in others))
    return picture(part + ': spine (blue) and what it is compared with (grey)', width, y, shapes)


# ------------------------------------------------------------------------ latency

HISTOGRAM, ROW = 34, 44                 # height of the bars, and of a row
FIRST_BUCKET, LAST_BUCKET = -10, 45     # 0.1 ms and 30 s; bucket i begins at 10^(i/10) ms
BUCKET = 9                              # width


def place(ms):
    return (10 * math.log10(max(ms, 0.11)) - FIRST_BUCKET) * BUCKET


def histogram_rows(raw):
    """(name, buckets, is_spine, p50, p99) of all that was measured. The runs of one rate are one histogram."""
    rows = {}
    for run in raw:
        load = '{:,} events/s'.format(run['rate']) + ', one core busy' * run['is_busy']
        if 'consumer' in run and 'title' in run:
            sides = [(run['title'], run, run['consumer'] == 'spine')]
        else:
            sides = [('spine', run['spine'], True), ('plain consumer, without a commit', run['consumer'], False)]
        for name, found, is_spine in sides:
            row = rows.setdefault('%s: %s' % (load, name), ({}, is_spine, [], []))
            for bucket, n in found['histogram'].items():
                row[0][int(bucket)] = row[0].get(int(bucket), 0) + n
            row[2].append(found['p50'])
            row[3].append(found['p99'])
    return [(name, buckets, is_spine, median(p50), median(p99)) for name, (buckets, is_spine, p50, p99) in rows.items()]


def median(values):
    return sorted(values)[len(values) // 2]


def draw_histograms(part, raw):
    rows = histogram_rows(raw)
    figures = ['p50 %s ms, p99 %s ms' % (number(p50), number(p99)) for _, _, _, p50, p99 in rows]
    left, y, shapes = 20 + round(CHARACTER * max(len(words) for words in [row[0] for row in rows] + figures)), 14, []
    width = left + (LAST_BUCKET - FIRST_BUCKET) * BUCKET + 20
    bottom = 14 + ROW * len(rows)
    for power in range(-1, 5):
        x = left + (10 * power - FIRST_BUCKET) * BUCKET
        shapes.append('<line x1="%d" y1="14" x2="%d" y2="%d" stroke="%s" stroke-opacity="0.35"/>' % (x, x, bottom, TEXT))
        shapes.append(text(x, bottom + 16, {-1: '0.1 ms', 0: '1 ms', 1: '10 ms', 2: '0.1 s', 3: '1 s', 4: '10 s'}[power],
                           'middle' if power >= 0 else 'start'))
    for (name, buckets, is_spine, p50, p99), words in zip(rows, figures):
        most = max(buckets.values())
        base = y + ROW - 4
        for bucket, n in sorted(buckets.items()):
            x = left + (min(max(bucket, FIRST_BUCKET), LAST_BUCKET - 1) - FIRST_BUCKET) * BUCKET
            high = max(1, round((HISTOGRAM - 2) * n / most))
            shapes.append('<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>'
                          % (x, base - high, BUCKET - 1, high, SPINE if is_spine else OTHER))
        for value in (p50, p99):
            x = left + place(value)
            shapes.append('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="2"/>'
                          % (x, base - HISTOGRAM, x, base + 2, TEXT))
        shapes.append(text(left - 10, base - 18, name, 'end') + text(left - 10, base - 2, words, 'end'))
        y += ROW
    return picture(part + ': how long events waited; the lines are p50 and p99', width, bottom + 26, shapes)


# -------------------------------------------------------------------------- scale

PANEL, PANEL_WIDTH = 90, 520


def draw_lines(part, steps):
    """A panel for each figure, over the number of events that the tables have."""
    def per_event(step):
        return step['drain']['wal_bytes'] / step['drain']['events']

    def bytes_each(table, key):
        return lambda step: (step['tables'][table]['table_bytes'] + step['tables'][table]['index_bytes']) / max(key(step), 1)

    panels = [('events/s', [('drain', lambda step: step['drain']['events'] / step['drain']['seconds'])]),
              ('ms', [('p50', lambda step: step['latency']['p50']), ('p99', lambda step: step['latency']['p99'])]),
              ('bytes of WAL an event', [('', per_event)]),
              ('bytes a row, with indexes', [('events', bytes_each('events', lambda step: step['events'])),
                                             ('current_orders', bytes_each('current_orders', lambda step: step['tables']['current_orders']['live']))]),
              ('dead rows for 100 rows of current_orders', [('', lambda step: 100 * step['tables']['current_orders']['dead'] /
                                                             max(step['tables']['current_orders']['live'], 1))]),
              ('MB of memory of a worker', [('its own', lambda step: step['drain']['memory']['own_mb'])])]
    left, y, shapes = 80, 24, []
    end = steps[-1]['events']
    for unit, lines in panels:
        most = max(value(step) for _, value in lines for step in steps) * 1.05 or 1
        shapes.append(text(left, y - 6, unit))
        shapes.append('<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="%s" stroke-opacity="0.5"/>'
                      % (left, y, PANEL_WIDTH, PANEL, TEXT))
        shapes.append(text(left - 6, y + 10, number(most), 'end') + text(left - 6, y + PANEL, '0', 'end'))
        for (name, value), color in zip(lines, (SPINE, OTHER)):
            points = [(left + PANEL_WIDTH * step['events'] / end, y + PANEL - PANEL * value(step) / most) for step in steps]
            shapes.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>'
                          % (' '.join('%.1f,%.1f' % point for point in points), color))
            shapes.append(text(left + PANEL_WIDTH + 6, round(points[-1][1]) + 4,
                               ' '.join([name, number(value(steps[-1]))]).strip()))
        y += PANEL + 34
    shapes.append(text(left, y - 16, '0') + text(left + PANEL_WIDTH, y - 16, '{:,} events'.format(end), 'end'))
    return picture(part + ': growth', left + PANEL_WIDTH + 170, y, shapes)


def picture(title, width, height, shapes):
    size = 'width="{0}" height="{1}" viewBox="0 0 {0} {1}"'.format(width, height)
    return ('<svg xmlns="http://www.w3.org/2000/svg" %s font-family="sans-serif" font-size="12" fill="%s">\n'
            '<title>%s</title>\n%s\n</svg>\n' % (size, TEXT, html.escape(title), '\n'.join(shapes)))


HISTOGRAMS, LINES = ('latency', 'latency-busy', 'peers-latency', 'peers-latency-busy'), ('scale',)


def main(results, directory):
    with open(results) as file:
        found = json.load(file)
    for part in dict.fromkeys(row['part'] for row in found['table']):
        with open(os.path.join(directory, 'bench-%s.svg' % part), 'w') as file:
            if part in HISTOGRAMS:
                file.write(draw_histograms(part, found['runs'][part]))
            elif part in LINES:
                file.write(draw_lines(part, found['runs'][part]))
            else:
                file.write(draw(part, [row for row in found['table'] if row['part'] == part]))


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
