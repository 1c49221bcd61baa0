"""The results: raw, run by run, and as a table of ratios.

A row of the table compares the figures of spine in each run with those of the limit or
peer in the same run. The ratio is the median of the runs' ratios. A run, as the parts hand it
over, is a dict. It may have events, cpu_seconds and wal_bytes, and under 'machine' what was
found about the machine meanwhile (quiet.py).
"""
import json
import os
import statistics

from quiet import DISTURBED, others, pace_change

UNITS = {
    'events/s': lambda x: '{:,.0f}'.format(x),
    'requests/s': lambda x: '{:,.0f}'.format(x),
    'ms': lambda x: '{:,.1f}'.format(x),
    's': lambda x: '{:.2f}'.format(x),
    'µs CPU/event': lambda x: '{:,.1f}'.format(x),
}
HEAD = ('part', 'case', 'spine', 'unit', 'against', '', 'ratio', 'its runs', 'µs CPU/event', 'B WAL/event', 'disturbed')


def per_event(runs, name, scale=1):
    """The median of a cost per event, or None if the runs do not have it."""
    values = [scale * run[name] / run['events'] for run in runs or () if run.get(name) is not None]
    return round(statistics.median(values), 2) if values else None


def disturbance(ours, theirs, ratios):
    """What the machine's noise did to the figures: the largest share of others, the change of pace, and
    the ratio of the runs that were quiet."""
    stretches = [[run['machine'] for run in runs if 'machine' in run] for runs in (ours, theirs or [])]
    pairs = list(zip(*stretches))
    noisy = [others(pair) > DISTURBED or abs(pace_change(pair[:1], pair[1:])) > DISTURBED for pair in pairs]
    found = {'others': others(stretches[0] + stretches[1]), 'pace': round(pace_change(*stretches), 4),
             'noisy_runs': sum(noisy)}
    if ratios and len(noisy) == len(ratios) and 0 < sum(noisy) < len(noisy):
        found['quiet_ratio'] = statistics.median(r for r, is_noisy in zip(ratios, noisy) if not is_noisy)
    return found


def disturbed_text(row):
    found, words = row.get('machine'), []
    if not found:
        return ''
    if found['others'] > DISTURBED:
        words.append('others {:.0%}'.format(found['others']))
    if abs(found['pace']) > DISTURBED:
        words.append('pace {:+.0%}'.format(found['pace']))
    if 'quiet_ratio' in found:
        words.append('{:.2f} without {} of {} runs'.format(found['quiet_ratio'], found['noisy_runs'], len(row['ratios'])))
    return ', '.join(words)


class Results:
    def __init__(self, about):
        self.about = about
        self.raw = {}
        self.rows = []

    def add_raw(self, part, **fields):
        """Adds one run, as it was measured."""
        self.raw.setdefault(part, []).append(fields)

    def compare(self, part, case, unit, spine, against=None, others=None, ours=None, theirs=None):
        """Adds one row: the values of spine's runs, and those of the other in the same runs. ours and
        theirs are the runs themselves, for what they cost and for what the machine did meanwhile."""
        row = {'part': part, 'case': case, 'unit': unit, 'spine': spine, 'against': against,
               'others': others, 'spine_median': statistics.median(spine)}
        if any(others or ()):
            row['others_median'] = statistics.median(others)
            row['ratios'] = [a / b for a, b in zip(spine, others) if b]
            row['ratio'] = statistics.median(row['ratios'])
        if ours:
            row['machine'] = disturbance(ours, theirs, row.get('ratios'))
            row['cpu_us'] = [per_event(runs, 'cpu_seconds', 1e6) for runs in (ours, theirs)]
            row['wal_bytes'] = [per_event(runs, 'wal_bytes') for runs in (ours, theirs)]
        self.rows.append(row)

    def take_over(self, path, parts):
        """Keeps from an earlier run of the same program on the same machine the parts that are not measured now."""
        if not os.path.exists(path):
            return
        with open(path) as file:
            before = json.load(file)
        same = [[about.get('commit'), about['machine'].get('cpu'), about.get('versions')]
                for about in (before['about'], self.about)]
        if same[0] != same[1] or str(same[0][0]).endswith('-dirty'):
            return
        self.rows = [row for row in before['table'] if row['part'] not in parts]
        self.raw = {part: runs for part, runs in before['runs'].items() if part not in parts}
        self.about['parts'] = {part: about for part, about in before['about'].get('parts', {}).items()
                               if part not in parts}

    def save(self, path):
        with open(path + '.new', 'w') as file:
            json.dump({'about': self.about, 'table': self.rows, 'runs': self.raw}, file, indent=1)
            file.write('\n')
        os.replace(path + '.new', path)     # whoever is interrupted leaves the file whole

    def table(self, first=0):
        return table(self.rows[first:])


def both(values, digits):
    """A cost of spine, and of the other."""
    return ' / '.join('{:,.{}f}'.format(v, digits) for v in values or () if v is not None)


def cells(row):
    show, has_other = UNITS[row['unit']], 'ratio' in row
    return (row['part'], row['case'], show(row['spine_median']), row['unit'],
            row['against'] if has_other else '', show(row['others_median']) if has_other else '',
            '{:.2f}'.format(row['ratio']) if has_other else '',
            '{:.2f} to {:.2f}'.format(min(row['ratios']), max(row['ratios'])) if has_other else
            '{} to {}'.format(show(min(row['spine'])), show(max(row['spine']))),
            both(row.get('cpu_us'), 1), both(row.get('wal_bytes'), 0), disturbed_text(row))


def table(rows):
    """The rows as a table for people, which is Markdown, too."""
    lines = [HEAD] + [cells(row) for row in rows]
    used = [i for i in range(len(HEAD)) if i < 8 or any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in used}
    text = ['| ' + ' | '.join(line[i].ljust(widths[i]) for i in used) + ' |' for line in lines]
    text.insert(1, '|' + '|'.join('-' * (widths[i] + 2) for i in used) + '|')
    return '\n'.join(text)
