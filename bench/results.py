"""The results: raw, run by run, and as a table of ratios.

A row of the table compares the figures of spine in each run with those of the limit or
peer in the same run. The ratio is the median of the runs' ratios.
"""
import json
import statistics

UNITS = {
    'events/s': lambda x: '{:,.0f}'.format(x),
    'requests/s': lambda x: '{:,.0f}'.format(x),
    'ms': lambda x: '{:,.1f}'.format(x),
    's': lambda x: '{:.2f}'.format(x),
}
HEAD = ('part', 'case', 'spine', 'unit', 'against', '', 'ratio', 'runs (spine)')


class Results:
    def __init__(self, about):
        self.about = about
        self.raw = {}
        self.rows = []

    def add_raw(self, part, **fields):
        """Adds one run, as it was measured."""
        self.raw.setdefault(part, []).append(fields)

    def compare(self, part, case, unit, spine, against=None, others=None):
        """Adds one row: the values of spine's runs, and those of the other in the same runs."""
        row = {'part': part, 'case': case, 'unit': unit, 'spine': spine, 'against': against,
               'others': others, 'spine_median': statistics.median(spine)}
        if others:
            row['others_median'] = statistics.median(others)
            row['ratio'] = statistics.median(a / b for a, b in zip(spine, others) if b)
        self.rows.append(row)

    def save(self, path):
        with open(path, 'w') as file:
            json.dump({'about': self.about, 'table': self.rows, 'runs': self.raw}, file, indent=1)
            file.write('\n')

    def table(self, first=0):
        lines = [HEAD]
        for row in self.rows[first:]:
            show = UNITS[row['unit']]
            has_other = 'ratio' in row
            lines.append((row['part'], row['case'], show(row['spine_median']), row['unit'],
                          row['against'] if has_other else '', show(row['others_median']) if has_other else '',
                          '{:.2f}'.format(row['ratio']) if has_other else '',
                          '{} to {}'.format(show(min(row['spine'])), show(max(row['spine'])))))
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        text = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in lines]
        text.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
        return '\n'.join(text)
