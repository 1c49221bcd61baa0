"""What one object of an overlay says about another, and the house rules.

Each rule is a function that yields a complaint for everything that is wrong;
its docstring is what is tested. RULES has them all.
"""

import re

import manifests as m

RULES = []


def rule(function):
    RULES.append(function)
    return function


def variables(container):
    """(name, value, reference) of a container's environment."""
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        yield variable["name"], variable.get("value"), source


@rule
def configuration(objects, project):
    """every ConfigMap and Secret that is named exists and has the key, and every key has a use"""
    used = set()
    known = {("ConfigMap", o["metadata"]["name"]): set(o.get("data", {})) for o in m.of_kind(objects, "ConfigMap")}
    known |= {("Secret", secret): keys for secret, keys in project.secrets.items()}
    for workload, container in m.all_containers(objects):
        for variable, _, source in variables(container):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if field not in source:
                    continue
                owner, key = (kind, source[field]["name"]), source[field]["key"]
                used.add((owner, key))
                if key not in known.get(owner, ()):
                    yield f"{m.where(workload, container)}: {variable}: no {'/'.join(owner)} with key {key}"
        for source in container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    owner = (kind, source[field]["name"])
                    used |= {(owner, key) for key in known.get(owner, ())}
                    if owner not in known:
                        yield f"{m.where(workload, container)}: no {'/'.join(owner)}"
    for workload in m.workloads(objects):
        for volume in m.pod(workload).get("volumes", []):
            for field, kind, key in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if field in volume:
                    owner = (kind, volume[field][key])
                    used |= {(owner, key) for key in known.get(owner, ())}
                    if owner not in known:
                        yield f"{m.name(workload)}: volume {volume['name']}: no {'/'.join(owner)}"
    # A ConfigMap that nothing reads is meant for later overlays.
    if used:
        for owner, keys in known.items():
            for key in sorted(keys):
                if (owner, key) not in used:
                    yield f"{'/'.join(owner)}: nothing uses the key {key}"


@rule
def secrets(objects, project):
    """no password is in the tree"""
    for obj in m.of_kind(objects, "Secret"):
        yield f"{m.name(obj)}: is made by `make secrets`"
    for workload, container in m.all_containers(objects):
        for variable, value, _ in variables(container):
            if value is not None and re.search("PASSWORD|SECRET|TOKEN", variable):
                yield f"{m.where(workload, container)}: {variable} has a value"


@rule
def expansions(objects, project):
    """every $(VARIABLE) is a variable of the container, defined before its use"""
    for workload, container in m.all_containers(objects):
        defined = set()
        for variable, value, _ in variables(container):
            for reference in re.findall(r"\$\((\w+)\)", value or ""):
                if reference not in defined:
                    yield f"{m.where(workload, container)}: {variable} uses {reference}, which is not defined before"
            defined.add(variable)
        if not m.shell_script(container.get("command", [])):
            for word in container.get("command", []) + container.get("args", []):
                for reference in re.findall(r"\$\((\w+)\)", word):
                    if reference not in defined:
                        yield f"{m.where(workload, container)}: {word}: no variable {reference}"


@rule
def script_variables(objects, project):
    """every $VARIABLE of a script is a variable of the container"""
    for workload, container in m.all_containers(objects):
        script = m.shell_script(container.get("command", [])) or ""
        defined = {variable for variable, _, _ in variables(container)}
        for reference in re.findall(r"\$\{?([A-Z]\w+)", script):
            if reference not in defined:
                yield f"{m.where(workload, container)}: the script uses {reference}"


@rule
def services(objects, project):
    """every Service leads to pods that have its ports, and k8s/k3d.yaml opens every node port"""
    for service in m.of_kind(objects, "Service"):
        behind = m.behind(objects, service)
        if not behind:
            yield f"{m.name(service)}: selects no pods"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for workload in behind:
                if not m.has_port(workload, target):
                    yield f"{m.name(service)}: {m.name(workload)} has no port {target}"
            if "nodePort" in port and (port["port"], port["nodePort"]) not in project.k3d_ports:
                yield f"{m.name(service)}: k8s/k3d.yaml does not lead port {port['port']} to {port['nodePort']}"


@rule
def own_selectors(objects, project):
    """every workload selects its own pods, and no others"""
    for workload in m.workloads(objects):
        if workload["kind"] == "Job":
            continue
        selector = workload["spec"]["selector"]
        if m.selected(objects, selector) != [workload]:
            yield f"{m.name(workload)}: its selector is not that of its pods alone"


@rule
def governing_services(objects, project):
    """every StatefulSet has the headless Service that it names"""
    for workload in m.of_kind(objects, "StatefulSet"):
        service = m.find(objects, "Service", workload["spec"]["serviceName"])
        if service is None:
            yield f"{m.name(workload)}: no Service {workload['spec']['serviceName']}"
        elif service["spec"].get("clusterIP") != "None" or workload not in m.behind(objects, service):
            yield f"{m.name(workload)}: {m.name(service)} is not a headless one of its pods"


@rule
def volumes(objects, project):
    """every mount has its volume, every volume a mount, every path one mount"""
    for workload in m.workloads(objects):
        there = {v["name"] for v in m.pod(workload).get("volumes", [])}
        there |= {c["metadata"]["name"] for c in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = set()
        for container in m.containers(workload):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(paths) != len(set(paths)):
                yield f"{m.where(workload, container)}: two mounts on one path"
            for mount in container.get("volumeMounts", []):
                mounted.add(mount["name"])
                if mount["name"] not in there:
                    yield f"{m.where(workload, container)}: no volume {mount['name']}"
        for volume in sorted(there - mounted):
            yield f"{m.name(workload)}: nothing mounts the volume {volume}"


@rule
def probes(objects, project):
    """every container that keeps running has probes, at ports of its own"""
    for workload, container in m.all_containers(objects):
        own = {p.get("name") for p in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            if probe is None:
                if own:
                    yield f"{m.where(workload, container)}: no {kind}"
                continue
            for handler in ("httpGet", "tcpSocket"):
                if handler in probe and probe[handler]["port"] not in own:
                    yield f"{m.where(workload, container)}: {kind}: no port {probe[handler]['port']}"


@rule
def policies(objects, project):
    """every NetworkPolicy and PodDisruptionBudget selects pods and ports that exist"""
    for policy in m.of_kind(objects, "NetworkPolicy"):
        about = m.selected(objects, policy["spec"]["podSelector"])
        if not about:
            yield f"{m.name(policy)}: selects no pods"
        for entry in policy["spec"].get("ingress", []):
            for peer in entry.get("from", []):
                if "podSelector" not in peer or "namespaceSelector" in peer:
                    continue
                if not m.selected(objects, peer["podSelector"]):
                    yield f"{m.name(policy)}: lets in pods that do not exist"
                for term in peer["podSelector"].get("matchExpressions", []):
                    for value in term.get("values", []):
                        if not m.selected(objects, {"matchLabels": {term["key"]: value}}):
                            yield f"{m.name(policy)}: lets {value} in, which does not exist"
            for port in entry.get("ports", []):
                if not any(m.has_port(workload, port["port"]) for workload in about):
                    yield f"{m.name(policy)}: no port {port['port']}"
    for budget in m.of_kind(objects, "PodDisruptionBudget"):
        if len(m.selected(objects, budget["spec"]["selector"])) != 1:
            yield f"{m.name(budget)}: is not about one workload"


@rule
def reachable(objects, project):
    """only what a policy allows can reach a pod, and every port of a Service can be reached"""
    denied = [p for p in m.of_kind(objects, "NetworkPolicy") if not p["spec"]["podSelector"] and "ingress" not in p["spec"]]
    if not denied:
        yield "no NetworkPolicy denies what is not allowed"
    for service in m.of_kind(objects, "Service"):
        for workload in m.behind(objects, service):
            allowed = [
                port["port"]
                for policy in m.of_kind(objects, "NetworkPolicy")
                if m.selects(policy["spec"]["podSelector"], m.pod_labels(workload))
                for entry in policy["spec"].get("ingress", [])
                for port in entry.get("ports", [])
            ]
            for port in service["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in allowed:
                    yield f"{m.name(service)}: no NetworkPolicy allows port {port['name']}"


def addresses(objects):
    """(where, host, port or None) of every address of a Service that is named."""
    texts = []
    for config in m.of_kind(objects, "ConfigMap"):
        texts += [(m.name(config), value) for value in config.get("data", {}).values()]
    for workload, container in m.all_containers(objects):
        texts += [(m.where(workload, container), word) for word in container.get("args", [])]
        for variable, value, _ in variables(container):
            if variable == "PGHOST":
                yield m.where(workload, container), value, None
            elif value:
                texts.append((m.where(workload, container), value))
    for place, text in texts:
        for host, port in re.findall(r"(?:^|[/=,])([a-z][a-z0-9.-]*):(\d+)", text):
            yield place, host, int(port)


@rule
def hosts(objects, project):
    """every host and port that is named belongs to a Service, or to a pod of a StatefulSet, in whatever namespace"""
    if not m.of_kind(objects, "Service"):
        return      # the addresses are those of phases to come
    for place, host, port in addresses(objects):
        labels = host.split(".")
        service = m.find(objects, "Service", labels[0])
        if service is None and len(labels) > 1:
            stateful, _, ordinal = labels[0].rpartition("-")
            workload = m.find(objects, "StatefulSet", stateful)
            service = m.find(objects, "Service", labels[1])
            if workload is None or workload["spec"]["serviceName"] != labels[1] or int(ordinal) >= workload["spec"]["replicas"]:
                service = None
            labels = labels[1:]
        if service is None:
            yield f"{place}: {host} is no Service"
            continue
        if len(labels) > 1:
            yield f"{place}: {host} names a namespace, and an overlay may choose another one"
        if port and port not in [p["port"] for p in service["spec"]["ports"]]:
            yield f"{place}: {m.name(service)} has no port {port}"


@rule
def scraped(objects, project):
    """Prometheus is led to a port of the pod"""
    for workload in m.workloads(objects):
        annotations = m.pod_annotations(workload)
        if annotations.get("prometheus.io/scrape") == "true":
            if not m.has_port(workload, int(annotations["prometheus.io/port"])):
                yield f"{m.name(workload)}: no port {annotations['prometheus.io/port']} to scrape"


@rule
def restricted(objects, project):
    """every pod keeps the rules of the restricted Pod Security Standard, and more"""
    for workload in m.workloads(objects):
        pod = m.pod(workload)
        context = pod.get("securityContext", {})
        for field, wanted in (("automountServiceAccountToken", False), ("enableServiceLinks", False)):
            if pod.get(field) is not wanted:
                yield f"{m.name(workload)}: {field} is not {str(wanted).lower()}"
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser") or not context.get("runAsGroup"):
            yield f"{m.name(workload)}: does not run as a user other than root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{m.name(workload)}: has no seccomp profile"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(field):
                yield f"{m.name(workload)}: {field}"
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{m.name(workload)}: volume {volume['name']} is the node's"
    for workload, container in m.all_containers(objects):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{m.where(workload, container)}: may gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"{m.where(workload, container)}: keeps capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{m.where(workload, container)}: its root file system is writable"


@rule
def resources(objects, project):
    """every container requests processor time and memory, and its memory limit is not below the request"""
    for workload, container in m.all_containers(objects):
        requests = container.get("resources", {}).get("requests", {})
        limits = container.get("resources", {}).get("limits", {})
        if "cpu" not in requests or "memory" not in requests or "memory" not in limits:
            yield f"{m.where(workload, container)}: requests or limits are missing"
        elif mebibytes(requests["memory"]) > mebibytes(limits["memory"]):
            yield f"{m.where(workload, container)}: requests more memory than its limit"


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


@rule
def images(objects, project):
    """every image has one version, the same in compose.yaml; ours is the one that `make image` builds"""
    versions = dict(project.compose_images)
    for workload, container in m.all_containers(objects):
        repository, _, version = container["image"].rpartition(":")
        if not repository or version == "latest" or "/" in version:
            yield f"{m.where(workload, container)}: {container['image']} names no version"
        elif versions.setdefault(repository, version) != version:
            yield f"{m.where(workload, container)}: {container['image']}, elsewhere it is {versions[repository]}"
        if "/" not in repository:
            if container["image"] != project.image:
                yield f"{m.where(workload, container)}: `make image` builds {project.image}"
            if container.get("imagePullPolicy") != "IfNotPresent":
                yield f"{m.where(workload, container)}: its image is in no registry"


@rule
def names(objects, project):
    """every object is in the namespace platform, once"""
    seen = set()
    for obj in objects:
        if obj["kind"] != "Namespace" and obj["metadata"].get("namespace") != "platform":
            yield f"{m.name(obj)}: not in the namespace platform"
        if m.name(obj) in seen:
            yield f"{m.name(obj)}: twice"
        seen.add(m.name(obj))
    if not m.find(objects, "Namespace", "platform"):
        yield "no Namespace platform"
