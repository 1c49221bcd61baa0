"""The alert rules and the dashboard: only metrics and labels that exist."""

import json
import re

import yaml
from project import TOP, read

ALERTS = "k8s/monitoring/alerts.yaml"
TESTS = "k8s/monitoring/alerts_test.yaml"
DASHBOARD = "k8s/monitoring/dashboard.json"
METRICS = "docs/HTTP.md"

# Labels that Prometheus gives, and the one of every histogram.
COMMON_LABELS = {"instance", "job", "le"}
KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
RULES = []


def rule(function):
    RULES.append(function)
    return function


def exported():
    """The samples that the sources export: {name: type}."""
    metrics = {}
    for part in (TOP / "sql/parts").glob("*.sql"):
        metrics |= dict(re.findall(r"SELECT '(spine_\w+)'(?: AS metric)?,\s*'(counter|gauge|histogram)'", part.read_text(encoding="utf-8")))
    for path in ("src/http/metrics.c", "src/http/endpoints.c"):
        metrics |= dict(re.findall(r"# TYPE (spine_\w+) (counter|gauge|histogram)", read(path)))
    samples = {}
    for name, kind in metrics.items():
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            samples[name + suffix] = name
    return samples


def documented(text):
    """The table of docs/HTTP.md: {metric: labels}."""
    rows = re.findall(r"^\| `(spine_\w+)` \|([^|]*)\|", text, re.M)
    return {metric: set(re.findall(r"`(\w+)`", labels)) for metric, labels in rows}


def used(expression):
    """(metrics, labels) that an expression of PromQL names."""
    labels = set()
    for matchers in re.findall(r"\{([^}]*)\}", expression):
        labels |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    expression = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    for names in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression):
        labels |= set(re.findall(r"\w+", names))
    expression = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expression)
    metrics = set(re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", expression))
    return metrics - KEYWORDS, labels


def unknown(place, expression, template=""):
    samples, labels_of = exported(), documented(read(METRICS))
    metrics, labels = used(expression)
    allowed = set(COMMON_LABELS)
    for metric in sorted(metrics):
        if metric not in samples:
            yield f"{place}: no metric {metric}"
        else:
            allowed |= labels_of.get(samples[metric], set())
    for label in sorted(labels | set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", template))):
        if label not in allowed:
            yield f"{place}: no label {label}"


def alerts(text):
    return [alert for group in yaml.safe_load(text)["groups"] for alert in group["rules"]]


@rule
def documentation(texts):
    """docs/HTTP.md: lists the metrics that the sources export, and no others"""
    for metric in sorted(set(documented(texts[METRICS])) ^ set(exported().values())):
        yield f"{metric}: is not in both"


@rule
def alert_metrics(texts):
    """alerts.yaml: every metric and label exists"""
    for alert in alerts(texts[ALERTS]):
        yield from unknown(alert["alert"], alert["expr"], " ".join(alert["annotations"].values()))


@rule
def alert_texts(texts):
    """alerts.yaml: every alert says what it means and what to do, in a section of docs/OPERATIONS.md that exists"""
    sections = set(re.findall(r"^## (.+)$", read("docs/OPERATIONS.md"), re.M))
    sections = {section.replace("`", "") for section in sections}
    for alert in alerts(texts[ALERTS]):
        for annotation in ("summary", "description", "action"):
            if not alert["annotations"].get(annotation):
                yield f"{alert['alert']}: no {annotation}"
        if alert["labels"].get("severity") not in ("warning", "critical"):
            yield f"{alert['alert']}: no severity"
        section = re.search(r'See docs/OPERATIONS\.md, "([^"]+)"\.$', alert["annotations"].get("action", ""))
        if section is None or section.group(1) not in sections:
            yield f"{alert['alert']}: leads to no section of docs/OPERATIONS.md"


@rule
def alert_tests(texts):
    """alerts_test.yaml: every alert is tested once when it fires and once when it does not"""
    fires, rests = set(), set()
    for test in yaml.safe_load(texts[TESTS])["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else rests).add(case["alertname"])
    names = {alert["alert"] for alert in alerts(texts[ALERTS])}
    for name in sorted(names - (fires & rests)):
        yield f"{name}: is not tested both ways"
    for name in sorted((fires | rests) - names):
        yield f"{name}: there is no such alert"


def dashboard_expressions(text):
    for panel in json.loads(text)["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


@rule
def dashboard_metrics(texts):
    """dashboard.json: every metric, label and variable exists"""
    dashboard = json.loads(texts[DASHBOARD])
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    for title, expression, legend in dashboard_expressions(texts[DASHBOARD]):
        yield from unknown(title, expression, legend)
        for variable in re.findall(r"\$(?!__)(\w+)", expression):
            if variable not in variables:
                yield f"{title}: no variable {variable}"
    for variable in dashboard["templating"]["list"]:
        query = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        if query:
            yield from unknown(variable["name"], query.group(1), f"{{{{{query.group(2)}}}}}")


@rule
def dashboard_layout(texts):
    """dashboard.json: panels have numbers and places of their own"""
    taken = {}
    panels = json.loads(texts[DASHBOARD])["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have one id"
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']}: wider than the dashboard"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if taken.setdefault((x, y), panel["title"]) != panel["title"]:
                    yield f"{panel['title']}: lies over {taken[x, y]}"
                    return


def as_rules(text):
    """The dashboard's expressions as a file of rules, for promtool to parse."""
    rules = []
    for number, (_, expression, _) in enumerate(dashboard_expressions(text)):
        expression = expression.replace("$__rate_interval", "5m")
        rules.append({"record": f"dashboard:{number}", "expr": expression})
    return yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
