#!/usr/bin/env python3
"""Tests of the objects that kustomize makes, and of the files around them.

    check.py DIR VERSION...

DIR has a NAME.yaml for each overlay; VERSION is one of Kubernetes, whose JSON
schemas the objects are validated against. Each test prints "ok - ..." or
"not ok - ..." and what is wrong. Then every rule is shown something broken, and
has to complain (mutations.py). Scripts and expressions that other programs are
to look at go to DIR.
"""

import sys
from pathlib import Path

import kubernetes_validate
import manifests as m
import monitoring
import mutations
import project
import references

# The overlay that the rest of the tree speaks of.
MAIN = "phase-1-ingest"


def test(what, complaints):
    complaints = list(complaints)
    print(f"{'not ok' if complaints else 'ok'} - {what}")
    for complaint in complaints:
        print(f"#   {complaint}")
    return not complaints


def schema_complaints(objects, version):
    for obj in objects:
        try:
            kubernetes_validate.validate(obj, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{m.name(obj)}: {'.'.join(map(str, error.path))}: {error.message}"


def read_texts():
    return {path: project.read(path) for path in (monitoring.ALERTS, monitoring.TESTS, monitoring.DASHBOARD, monitoring.METRICS)}


def main(directory, versions):
    facts = project.Project()
    overlays = {path.stem: m.load(path) for path in sorted(directory.glob("*.yaml"))}
    passed = []

    for name, objects in overlays.items():
        for version in versions:
            passed.append(test(f"{name}: fits the schemas of Kubernetes {version}", schema_complaints(objects, version)))
        for rule in references.RULES:
            passed.append(test(f"{name}: {rule.__doc__}", rule(objects, facts)))
    for rule in project.RULES:
        passed.append(test(rule.__doc__, rule(facts, overlays[MAIN])))
    texts = read_texts()
    for rule in monitoring.RULES:
        passed.append(test(rule.__doc__, rule(texts)))
    for what, complaints in mutations.results(overlays[MAIN], texts, lambda o: schema_complaints(o, versions[0])):
        passed.append(test(what, complaints))

    (directory / "scripts").mkdir(exist_ok=True)
    for name, shell, text in project.scripts(facts, overlays[MAIN]):
        (directory / "scripts" / f"{name}.{shell}").write_text(f"#!/bin/{shell}\n{text}")
    (directory / "dashboard.rules").write_text(monitoring.as_rules(texts[monitoring.DASHBOARD]))
    return all(passed)


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1]), sys.argv[2:]))
