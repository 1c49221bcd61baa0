#!/usr/bin/env python3
"""Draws the table of a run as bars: bench/chart.py RESULTS.json DIRECTORY

Writes one bench-PART.svg for each part. In each, spine is above what it is compared
with, on a scale of the unit. Grey and blue are legible on a white page and on a black one.
"""
import html
import json
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
    size = 'width="{0}" height="{1}" viewBox="0 0 {0} {1}"'.format(width, y)
    return ('<svg xmlns="http://www.w3.org/2000/svg" %s font-family="sans-serif" font-size="12" fill="%s">\n'
            '<title>%s: spine (blue) and what it is compared with (grey)</title>\n%s\n</svg>\n'
            % (size, TEXT, html.escape(part), '\n'.join(shapes)))


def main(results, directory):
    with open(results) as file:
        table = json.load(file)['table']
    for part in dict.fromkeys(row['part'] for row in table):
        with open(os.path.join(directory, 'bench-%s.svg' % part), 'w') as file:
            file.write(draw(part, [row for row in table if row['part'] == part]))


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
