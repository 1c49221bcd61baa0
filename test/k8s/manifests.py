"""Objects of Kubernetes, as kustomize writes them, and ways to go through them."""

import yaml

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def load(path):
    with open(path, encoding="utf-8") as file:
        return [obj for obj in yaml.safe_load_all(file) if obj]


def name(obj):
    return f"{obj['kind']}/{obj['metadata']['name']}"


def of_kind(objects, *kinds):
    return [obj for obj in objects if obj["kind"] in kinds]


def find(objects, kind, object_name):
    for obj in of_kind(objects, kind):
        if obj["metadata"]["name"] == object_name:
            return obj
    return None


def workloads(objects):
    return of_kind(objects, *WORKLOADS)


def pod(workload):
    return workload["spec"]["template"]["spec"]


def pod_labels(workload):
    return workload["spec"]["template"]["metadata"].get("labels", {})


def pod_annotations(workload):
    return workload["spec"]["template"]["metadata"].get("annotations", {})


def containers(workload):
    return pod(workload).get("initContainers", []) + pod(workload)["containers"]


def all_containers(objects):
    """Pairs of a workload and one of its containers."""
    return [(w, c) for w in workloads(objects) for c in containers(w)]


def where(workload, container):
    return f"{name(workload)}, container {container['name']}"


def ports(workload):
    return [port for container in containers(workload) for port in container.get("ports", [])]


def has_port(workload, port):
    """Whether a port, by name or number, is one of the pod's."""
    return any(port in (p.get("name"), p["containerPort"]) for p in ports(workload))


def selects(selector, labels):
    """A label selector of Kubernetes: matchLabels and matchExpressions."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        present = {
            "In": labels.get(term["key"]) in term.get("values", []),
            "NotIn": labels.get(term["key"]) not in term.get("values", []),
            "Exists": term["key"] in labels,
            "DoesNotExist": term["key"] not in labels,
        }[term["operator"]]
        if not present:
            return False
    return True


def selected(objects, selector):
    return [w for w in workloads(objects) if selects(selector, pod_labels(w))]


def behind(objects, service):
    """The workloads whose pods a Service leads to."""
    return selected(objects, {"matchLabels": service["spec"].get("selector", {})})


def shell_script(command):
    """The script in a command like [sh, -euc, SCRIPT, ...], else None."""
    if len(command) >= 3 and command[0] in ("sh", "bash") and command[1].startswith("-") and command[1].endswith("c"):
        return command[2]
    return None
