"""Breaks one thing at a time, and checks that the rule for it complains."""

import copy

import manifests as m
import monitoring
import project
import references

POSTGRES = "StatefulSet/postgres spec.template.spec."
PRODUCER = "Deployment/producer spec.template.spec."

# (rule, what is broken: an object and the path of a field, its new value or
# None for none, a part of the complaint)
OBJECTS = [
    ("configuration", "ConfigMap/platform-config data.topic", None, "no ConfigMap/platform-config with key topic"),
    ("configuration", "ConfigMap/platform-config data.extra", "1", "nothing uses the key extra"),
    ("configuration", PRODUCER + "containers.0.env.2.valueFrom.secretKeyRef.key", "user", "no Secret/postgres-credentials with key user"),
    ("configuration", PRODUCER + "containers.0.env.2.valueFrom.secretKeyRef.name", "other", "no Secret/other"),
    ("secrets", POSTGRES + "containers.0.env.1", {"name": "POSTGRES_PASSWORD", "value": "x"}, "has a value"),
    ("secrets", "Service/api kind", "Secret", "is made by"),
    ("expansions", POSTGRES + "containers.0.env.6.name", "BROKER", "no variable BROKERS"),
    ("expansions", POSTGRES + "containers.0.env.0.name", "USER", "uses POSTGRES_USER"),
    ("script_variables", PRODUCER + "containers.0.env.5.name", "TENANT", "uses TENANTS"),
    ("services", "Service/api spec.ports.0.targetPort", "web", "has no port web"),
    ("services", "Service/api spec.ports.0.nodePort", 30801, "does not lead port"),
    ("services", "Service/redpanda spec.selector", {"app.kubernetes.io/name": "kafka"}, "selects no pods"),
    ("own_selectors", PRODUCER[:-5] + "metadata.labels", {"app.kubernetes.io/name": "postgres"}, "its selector"),
    ("governing_services", "StatefulSet/postgres spec.serviceName", "db", "no Service db"),
    ("governing_services", "Service/postgres spec.clusterIP", None, "is not a headless one"),
    ("volumes", POSTGRES + "containers.1.volumeMounts.0.name", "run", "no volume run"),
    ("volumes", "StatefulSet/postgres spec.volumeClaimTemplates.0.metadata.name", "db", "nothing mounts the volume db"),
    ("probes", POSTGRES + "containers.0.livenessProbe.tcpSocket.port", "pg", "no port pg"),
    ("probes", POSTGRES + "containers.1.readinessProbe", None, "no readinessProbe"),
    ("policies", "NetworkPolicy/postgres spec.ingress.0.ports.0.port", "pg", "no port pg"),
    ("policies", "NetworkPolicy/redpanda spec.ingress.0.from.0.podSelector.matchExpressions.0.values.0", "db", "lets db in"),
    ("policies", "PodDisruptionBudget/redpanda spec.selector.matchLabels", {"app": "x"}, "not about one workload"),
    ("reachable", "NetworkPolicy/postgres spec.ingress.1", {"ports": []}, "no NetworkPolicy allows port http"),
    ("reachable", "NetworkPolicy/default-deny spec.podSelector", {"matchLabels": {"a": "b"}}, "no NetworkPolicy denies"),
    ("hosts", "ConfigMap/platform-config data.brokers", "redpanda:9093", "has no port 9093"),
    ("hosts", "ConfigMap/platform-config data.brokers", "kafka:9092", "kafka is no Service"),
    ("hosts", "StatefulSet/redpanda spec.template.spec.containers.0.args.6",
     "--advertise-kafka-addr=internal://redpanda-0.redpanda.platform.svc:9092", "names a namespace"),
    ("hosts", "StatefulSet/redpanda metadata.name", "broker", "is no Service"),
    ("hosts", PRODUCER + "containers.0.env.0.value", "db", "db is no Service"),
    ("scraped", "StatefulSet/redpanda spec.template.metadata.annotations.prometheus~io/port", "9000", "no port 9000"),
    ("restricted", POSTGRES + "automountServiceAccountToken", None, "automountServiceAccountToken"),
    ("restricted", POSTGRES + "securityContext.runAsUser", 0, "other than root"),
    ("restricted", POSTGRES + "securityContext.seccompProfile", None, "no seccomp profile"),
    ("restricted", POSTGRES + "hostNetwork", True, "hostNetwork"),
    ("restricted", POSTGRES + "containers.1.securityContext.allowPrivilegeEscalation", True, "gain privileges"),
    ("restricted", POSTGRES + "containers.1.securityContext.capabilities", None, "keeps capabilities"),
    ("restricted", POSTGRES + "containers.1.securityContext.readOnlyRootFilesystem", False, "is writable"),
    ("resources", POSTGRES + "containers.0.resources.limits", None, "are missing"),
    ("resources", POSTGRES + "containers.0.resources.requests.memory", "2Gi", "more memory than its limit"),
    ("images", "Job/topic-init spec.template.spec.containers.0.image", "docker.redpanda.com/redpandadata/redpanda:v1", "elsewhere it is"),
    ("images", PRODUCER + "containers.0.image", "spine-postgres:prod", "`make image` builds"),
    ("images", PRODUCER + "containers.0.image", "spine-postgres", "names no version"),
    ("images", PRODUCER + "containers.0.imagePullPolicy", None, "is in no registry"),
    ("names", "Service/api metadata.namespace", "default", "not in the namespace"),
    ("names", "Service/api metadata.name", "postgres", "twice"),
    ("schemas", "Service/api spec.port", [], "'port' was unexpected"),
    ("schemas", "Deployment/producer spec.replicas", "one", "'one' is not of type"),
    ("schemas", "Job/topic-init spec.template.spec.containers", None, "'containers' is a required property"),
]

# (rule, file, text in it, its replacement, a part of the complaint)
FILES = [
    ("compose_services", "compose.yaml", "      redpanda:\n        condition", "      kafka:\n        condition", "depends on kafka"),
    ("compose_services", "compose.yaml", "healthcheck:\n      test: [CMD, curl", "x-healthcheck:\n      test: [CMD, curl", "no health check"),
    ("compose_services", "compose.yaml", "- socket:/var", "- sockets:/var", "socket"),
    ("compose_addresses", "compose.yaml", "RPK_BROKERS: redpanda:9092", "RPK_BROKERS: kafka:9092", "kafka is no service"),
    ("compose_addresses", "compose.yaml", "RPK_BROKERS: redpanda:9092", "RPK_BROKERS: redpanda:9093", "does not listen on 9093"),
    ("compose_addresses", "compose.yaml", "- 127.0.0.1:${HTTP_PORT:-8000}:8000", "- 8000:8000", "open to others"),
    ("compose_addresses", "compose.yaml", "${POSTGRES_PASSWORD:-}", "secret", "has a value"),
    ("compose_images", "compose.yaml", "image: spine-postgres:dev", "image: spine-postgres:latest", "spine-postgres:latest"),
    ("compose_topic", "compose.yaml", "create events", "create orders", "makes another topic"),
    ("compose_topic", "compose.yaml", "spine.topic=events", "spine.topic=orders", "spine.topic is not events"),
    ("k3d", "k8s/k3d.yaml", "name: data-platform\n", "name: other\n", "the cluster's name"),
    ("k3d", "k8s/k3d.yaml", "hostIP: 127.0.0.1", "hostIP: 0.0.0.0", "API server is open to others"),
    ("k3d", "k8s/k3d.yaml", "127.0.0.1:8000:30800", "0.0.0.0:8000:30800", "open to others"),
    ("k3d", "k8s/k3d.yaml", "127.0.0.1:8000:30800", "127.0.0.1:8000:30801", "leads to no Service"),
    ("cluster_script", "tools/cluster.sh", "exec -it statefulset/redpanda", "exec -it statefulset/kafka", "no statefulset/kafka"),
    ("cluster_script", "tools/cluster.sh", "-c spine-http", "-c http", "no container http"),
    ("cluster_script", "tools/cluster.sh", "    kube annotate", "    kubectl annotate", "without --context"),
    ("tiltfile", "k8s/Tiltfile", "'spine-postgres'", "'postgres-spine'", "no container runs"),
    ("tiltfile", "k8s/Tiltfile", "        'sql',\n", "", "sql: is not in both"),
    ("tiltfile", "k8s/Tiltfile", "resource_deps=['redpanda']", "resource_deps=['kafka']", "no workload kafka"),
    ("tiltfile", "k8s/Tiltfile", "k8s_yaml(", "k8s_yml(", "NameError"),
    ("tiltfile", "k8s/Tiltfile", "15432, 5432", "15432, 5433", "no port 5433"),
    ("documentation", monitoring.METRICS, "`spine_upserts_total`", "`spine_upsert_total`", "spine_upsert_total"),
    ("alert_metrics", monitoring.ALERTS, "spine_worker_failed", "spine_worker_broken", "no metric spine_worker_broken"),
    ("alert_metrics", monitoring.ALERTS, "$labels.worker", "$labels.wrker", "no label wrker"),
    ("alert_metrics", monitoring.ALERTS, "by (instance, endpoint)", "by (instance, path)", "no label path"),
    ("alert_texts", monitoring.ALERTS, '"Dead letters".', '"Letters".', "leads to no section"),
    ("alert_texts", monitoring.ALERTS, "severity: critical", "severity: bad", "no severity"),
    ("alert_tests", monitoring.TESTS, "alertname: SpineDeadLetters", "alertname: SpineDead", "is not tested both ways"),
    ("dashboard_metrics", monitoring.DASHBOARD, "spine_upserts_total", "spine_upserts", "no metric spine_upserts"),
    ("dashboard_metrics", monitoring.DASHBOARD, "by (tenant)", "by (tennant)", "no label tennant"),
    ("dashboard_metrics", monitoring.DASHBOARD, "$pipeline", "$pipe", "no variable pipe"),
    ("dashboard_layout", monitoring.DASHBOARD, '"id": 2,', '"id": 1,', "two panels have one id"),
    ("dashboard_layout", monitoring.DASHBOARD, '"w": 12,', '"w": 13,', "wider than the dashboard"),
]


def change(objects, place, value):
    """A copy of the objects, with one field changed; "~" in a path is a dot."""
    objects = copy.deepcopy(objects)
    name, path = place.split(" ")
    at = next(obj for obj in objects if m.name(obj) == name)
    *keys, last = [int(k) if k.isdigit() else k.replace("~", ".") for k in path.split(".")]
    for key in keys:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return objects


def missed(complaints, part):
    complaints = list(complaints)
    if not any(part in complaint for complaint in complaints):
        yield f"no complaint says \"{part}\": {complaints}"


def results(objects, texts, schemas):
    """(what, complaints) of each mutation; then whether any rule was left out."""
    of_objects = {rule.__name__: rule for rule in references.RULES}
    of_project = {rule.__name__: rule for rule in project.RULES}
    of_monitoring = {rule.__name__: rule for rule in monitoring.RULES}
    facts = project.Project()
    tried = set()

    for rule, place, value, part in OBJECTS:
        tried.add(rule)
        broken = change(objects, place, value)
        said = schemas(broken) if rule == "schemas" else of_objects[rule](broken, facts)
        yield f"noticed: {place} {'removed' if value is None else f'= {value}'}", missed(said, part)

    for rule, path, text, other, part in FILES:
        tried.add(rule)
        before = texts.get(path) or project.read(path)
        after = before.replace(text, other)
        if after == before:
            yield f"noticed: {path}", [f"{text!r} is not in it"]
            continue
        if rule in of_project:
            said = of_project[rule](project.Project({path: after}), objects)
        else:
            said = of_monitoring[rule](texts | {path: after})
        yield f"noticed: {path}: {text!r} = {other!r}".replace("\\n", " "), missed(said, part)

    untried = {*of_objects, *of_project, *of_monitoring} - tried
    yield "every rule has been seen to complain", sorted(untried)
