"""Runs clang-format over C files, and makes those of its changes that fit the look.

    format.py CLANG-FORMAT FILE...           formats the files
    format.py --check CLANG-FORMAT FILE...   names the lines that it would change

clang-format cannot pad a declaration's type to a column, and it joins and splits
lines by rules of its own. So the author keeps the columns inside a line, the line
breaks within a statement, and the indentation of a string that goes on in the next
line. What remains for clang-format: indentation, spaces, blank lines, and the line
breaks around braces, before else, after a statement and after a return type.
"""
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree


class Source:
    def __init__(self, text):
        self.text = text
        self.unaligned = -1     # the last line whose columns are not clang-format's

    def line_number(self, at):
        return self.text.count(b"\n", 0, at) + 1

    def line_before(self, at):
        return self.text[self.text.rfind(b"\n", 0, at) + 1:at]

    def takes(self, start, end, new):
        """Is this change of white space one to make? Asked in the order of the text."""
        old = self.text[start:end]
        if (old + new).strip():
            return False                # a line break inside a macro
        if old.count(b"\n") == new.count(b"\n"):
            if b"\n" in old or not self.line_before(start).strip():
                return self.takes_indentation(start, end)
            if old and new:
                self.unaligned = self.line_number(start)
                return False            # columns
            return True                 # a missing space, or one too many
        if b"\n" in old:
            return b"\n" in new         # blank lines
        return self.takes_break(start, end)

    def takes_indentation(self, start, end):
        if self.text.startswith(b'"', end):
            return False
        # What goes on from a line with columns is aligned with what stands there,
        # and clang-format does not know where that is.
        line = self.line_number(end)
        code = re.sub(rb"\s*/\*.*\*/\s*", b"", self.line_before(start))
        if self.unaligned == line - 1 and code[-1:] not in b";{}":
            self.unaligned = line
            return False
        return True

    def takes_break(self, start, end):
        line, rest = self.line_before(start), self.text[end:end + 4]
        return (line[-1:] in b";{}" or rest[:1] in b"{}" or rest == b"else"
                or line[-1:] == b")" and rest[:1].isalpha()
                or re.match(rb"[a-z]", line) is not None)


def formatted(clang_format, path):
    """The text as it is, as it should be, and the numbers of the lines that differ."""
    with open(path, "rb") as file:
        source = Source(file.read())
    output = subprocess.run([clang_format, "--style=file", "--output-replacements-xml", path],
                            check=True, stdout=subprocess.PIPE).stdout
    pieces, lines, done = [], [], 0
    for replacement in ElementTree.fromstring(output).iter("replacement"):
        start = int(replacement.get("offset"))
        end = start + int(replacement.get("length"))
        new = (replacement.text or "").encode()
        if source.takes(start, end, new):
            pieces += [source.text[done:start], new]
            lines.append(source.line_number(end))
            done = end
    return b"".join(pieces + [source.text[done:]]), lines


def main(arguments):
    check = arguments[0] == "--check"
    clang_format, *paths = arguments[check:]
    bad = 0
    for path in paths:
        text, lines = formatted(clang_format, path)
        bad += len(lines)
        if check:
            for line in lines:
                print(f"{path}:{line}: not as \"make format\" would make it")
        elif lines:
            print(f"{path}: formatted")
            with open(path, "wb") as file:
                file.write(text)
    return 1 if check and bad else 0


sys.exit(main(sys.argv[1:]))
