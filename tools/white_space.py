"""Checks files against .editorconfig.

    white_space.py FILE...   names the lines that do not obey it

Indented with tabs means: by tabs, then by fewer blanks than make another one, as
alignment and comments have them. A here-document of a shell script may begin its
lines with tabs, which <<- takes away.
"""
import os
import re
import sys

import editorconfig


def without_here_documents(lines):
    """The lines, but "" instead of those in a <<- document."""
    end = None
    for line in lines:
        if end is None:
            yield line
            start = re.search(rb"<<-\s*['\"]?(\w+)", line)
            end = start and start.group(1)
        else:
            yield b""
            if line.strip() == end:
                end = None


def problems(path, text, rules):
    """Pairs of a line's number and what is wrong with it."""
    lines = text.split(b"\n")
    if rules.get("charset") == "utf-8":
        try:
            text.decode()
        except UnicodeDecodeError as error:
            yield text.count(b"\n", 0, error.start) + 1, "not UTF-8"
    if rules.get("insert_final_newline") == "true" and lines[-1]:
        yield len(lines), "no line break at the end of the file"

    code_lines = list(without_here_documents(lines)) if path.endswith(".sh") else lines
    indentation = {
        "tab": re.compile(rb"\t* (\t| {%d})" % (int(rules.get("tab_width", 8)) - 1)),
        "space": re.compile(rb" *\t"),
    }.get(rules.get("indent_style"))
    for number, (line, code) in enumerate(zip(lines, code_lines), 1):
        if rules.get("end_of_line") == "lf" and b"\r" in line:
            yield number, "a carriage return"
        elif rules.get("trim_trailing_whitespace") == "true" and line != line.rstrip():
            yield number, "white space at the end of the line"
        if indentation and indentation.match(code):
            yield number, f"not indented with {rules['indent_style']}s"


def main(paths):
    bad = 0
    for path in paths:
        rules = editorconfig.get_properties(os.path.abspath(path))
        with open(path, "rb") as file:
            text = file.read()
        for number, what in problems(path, text, rules):
            print(f"{path}:{number}: {what}")
            bad = 1
    return bad


sys.exit(main(sys.argv[1:]))
