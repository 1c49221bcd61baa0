"""What the rest of the tree says about the cluster, and whether that is right:
compose.yaml, k8s/k3d.yaml, k8s/Tiltfile, tools/cluster.sh, tools/image.sh.
"""

import re
from pathlib import Path

import manifests as m
import yaml

TOP = Path(__file__).resolve().parents[2]


def read(path):
    return (TOP / path).read_text(encoding="utf-8")


class Project:
    """The facts; `files` replaces the text of some, to see what a change does."""

    def __init__(self, files=None):
        self.files = files or {}
        self.compose = yaml.safe_load(self.text("compose.yaml"))
        self.k3d = yaml.safe_load(self.text("k8s/k3d.yaml"))
        self.cluster_script = self.text("tools/cluster.sh")
        self.image = re.search(r"\{IMAGE:-([^}]+)\}", self.text("tools/image.sh")).group(1)
        self.secrets = {
            secret: set(re.findall(r"--from-(?:literal|file)=(\w+)=", options))
            for secret, options in re.findall(r"create secret generic (\S+)((?:[^\n]*\\\n)*[^\n]*)", self.cluster_script)
        }
        self.k3d_ports = []
        for port in self.k3d["ports"]:
            address, outside, inside = port["port"].split(":")
            self.k3d_ports.append((int(outside), int(inside)))
        self.compose_images = {}
        for service in self.compose["services"].values():
            repository, _, version = service["image"].rpartition(":")
            self.compose_images.setdefault(repository, version)

    def text(self, path):
        return self.files.get(path) or read(path)


RULES = []


def rule(function):
    RULES.append(function)
    return function


@rule
def compose_services(project, objects):
    """compose.yaml: every service and volume that is named exists, and a service that waits for another's health finds a health check"""
    services = project.compose["services"]
    volumes = set()
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name}: depends on {other}, which does not exist"
            elif how["condition"] == "service_healthy" and not healthy(project, services[other]):
                yield f"{name}: waits for the health of {other}, which has no health check"
            elif how["condition"] == "service_completed_successfully" and "restart" in services[other]:
                yield f"{name}: waits for the end of {other}, which is restarted"
        for volume in service.get("volumes", []):
            volumes.add(volume.split(":")[0])
    if volumes != set(project.compose["volumes"]):
        yield f"volumes: {sorted(volumes ^ set(project.compose['volumes']))}"


def healthy(project, service):
    image = service.get("build", {}).get("dockerfile")
    return "healthcheck" in service or (image and "\nHEALTHCHECK " in project.text(image))


@rule
def compose_addresses(project, objects):
    """compose.yaml: every address is that of a service, ports are open to this machine only, and no password is in it"""
    services = project.compose["services"]
    for name, service in services.items():
        words = service.get("command", []) + list(service.get("environment", {}).values())
        for word in words:
            for host, port in re.findall(r"(?:^|[/=,])([a-z][a-z0-9.-]*):(\d+)", str(word)):
                if host not in services:
                    yield f"{name}: {host} is no service"
                elif port not in "".join(services[host].get("command", [])):
                    yield f"{name}: {host} does not listen on {port}"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name}: {port} is open to others"
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable and not re.fullmatch(r"\$\{\w+:-\}", value):
                yield f"{name}: {variable} has a value"


@rule
def compose_images(project, objects):
    """compose.yaml: every image has one version, and ours is the one that `make image` builds"""
    for name, service in project.compose["services"].items():
        repository, _, version = service["image"].rpartition(":")
        if not repository or version == "latest" or project.compose_images[repository] != version:
            yield f"{name}: {service['image']}"
        if "build" in service and service["image"] != project.image:
            yield f"{name}: `make image` builds {project.image}"
        if "build" in service and not (TOP / service["build"]["dockerfile"]).exists():
            yield f"{name}: no {service['build']['dockerfile']}"


@rule
def compose_topic(project, objects):
    """compose.yaml: the topic, its partitions and the tenants are those of platform-config"""
    config = m.find(objects, "ConfigMap", "platform-config")["data"]
    services = project.compose["services"]
    script = m.shell_script(services["topic-init"]["entrypoint"])
    if f"topic create {config['topic']} --partitions {config['partitions']} " not in script:
        yield "topic-init makes another topic"
    for setting in ("brokers", "topic", "producer_tenants"):
        value = config["tenants" if setting == "producer_tenants" else setting]
        if f"spine.{setting}={value}" not in services["postgres"]["command"]:
            yield f"spine.{setting} is not {value}"
    if services["postgres"]["environment"]["POSTGRES_DB"] != config["database"]:
        yield f"the database is not {config['database']}"


@rule
def k3d(project, objects):
    """k8s/k3d.yaml: the cluster is that of tools/cluster.sh, its ports are open to this machine only and lead to a Service"""
    name = re.search(r"^cluster=(\S+)", project.cluster_script, re.M).group(1)
    if project.k3d["metadata"]["name"] != name:
        yield f"the cluster's name is not {name}"
    if project.k3d.get("kubeAPI", {}).get("hostIP") != "127.0.0.1":
        yield "the API server is open to others"
    node_ports = [p.get("nodePort") for s in m.of_kind(objects, "Service") for p in s["spec"]["ports"]]
    for port in project.k3d["ports"]:
        if not port["port"].startswith("127.0.0.1:"):
            yield f"{port['port']} is open to others"
        if int(port["port"].split(":")[2]) not in node_ports:
            yield f"{port['port']} leads to no Service"


@rule
def cluster_script(project, objects):
    """tools/cluster.sh: every workload that it names exists, and it talks to one cluster only"""
    for kind, name in re.findall(r"\b(statefulset|deployment|job)/([a-z-]+)", project.cluster_script):
        if not any(m.name(w).lower() == f"{kind}/{name}" for w in m.workloads(objects)):
            yield f"there is no {kind}/{name}"
    for pod in re.findall(r"delete pod (\S+)", project.cluster_script):
        if not m.find(objects, "StatefulSet", pod.rpartition("-")[0]):
            yield f"there is no pod {pod}"
    for container in re.findall(r"logs .*-c (\S+)", project.cluster_script):
        if container not in [c["name"] for _, c in m.all_containers(objects)]:
            yield f"there is no container {container}"
    for path in re.findall(r"\bk8s/[\w/.-]+\.yaml", project.cluster_script):
        if not (TOP / path).exists():
            yield f"there is no {path}"
    code = re.sub(r"<<-'TEXT'.*?\n\tTEXT", "", project.cluster_script, flags=re.S)
    for line in code.splitlines():
        calls = re.search(r"(?:^|[;&|(!]|\bif\b)\s*kubectl (\S+)", line)
        if calls and calls.group(1) not in ("--context", "config"):
            yield f"kubectl without --context: {line.strip()}"


@rule
def tiltfile(project, objects):
    """k8s/Tiltfile: runs; the files, images, workloads and ports that it names exist"""
    calls = []

    def record(name):
        return lambda *args, **options: calls.append((name, args, options)) or (name, args, options)

    def fail(message):
        raise RuntimeError(message)

    class Config:
        define_string = staticmethod(record("define_string"))
        parse = staticmethod(dict)

    context = "k3d-" + project.k3d["metadata"]["name"]
    builtins = {name: record(name) for name in (
        "allow_k8s_contexts", "docker_build", "k8s_resource", "k8s_yaml", "kustomize", "link", "port_forward")}
    builtins |= {"config": Config, "k8s_context": lambda: context, "fail": fail, "__builtins__": {}}
    # Starlark looks like Python, and the parts that are used here mean the same.
    try:
        exec(compile(project.text("k8s/Tiltfile"), "k8s/Tiltfile", "exec"), builtins)
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
        return

    here = TOP / "k8s"
    images = {c["image"].rpartition(":")[0] for _, c in m.all_containers(objects)}
    for name, args, options in calls:
        if name == "allow_k8s_contexts" and args != (context,):
            yield f"allows {args}"
        if name == "kustomize" and not (here / args[0] / "kustomization.yaml").exists():
            yield f"no {args[0]}"
        if name == "docker_build":
            if args[0] not in images:
                yield f"no container runs {args[0]}"
            context_dir = here / args[1]
            if not (here / options["dockerfile"]).exists():
                yield f"no {options['dockerfile']}"
            sources = set(re.findall(r"^!(\S+)", read(".dockerignore"), re.M))
            for path in sources ^ set(options["only"]):
                yield f"{path}: is not in both the Tiltfile and .dockerignore"
            for path in options["only"]:
                if not (context_dir / path).exists():
                    yield f"no {path}"
        if name == "k8s_resource":
            workload = next((w for w in m.workloads(objects) if w["metadata"]["name"] == args[0]), None)
            if workload is None:
                yield f"no workload {args[0]}"
                continue
            for other in options.get("resource_deps", []):
                if other not in [w["metadata"]["name"] for w in m.workloads(objects)]:
                    yield f"{args[0]}: no workload {other}"
            for _, ports, _ in options.get("port_forwards", []):
                if not m.has_port(workload, ports[-1]):
                    yield f"{args[0]}: no port {ports[-1]}"
            for _, (url, _), _ in options.get("links", []):
                if int(re.search(r":(\d+)/", url).group(1)) not in [outside for outside, _ in project.k3d_ports]:
                    yield f"{args[0]}: {url} is not what k3d.yaml opens"
    if not any(name == "docker_build" for name, _, _ in calls):
        yield "builds no image"


def scripts(project, objects):
    """(name, shell, text) of every shell script in YAML."""
    for workload, container in m.all_containers(objects):
        command = container.get("command", [])
        if m.shell_script(command):
            yield f"{workload['metadata']['name']}.{container['name']}", command[0], m.shell_script(command)
    for name, service in project.compose["services"].items():
        for what, command in (
            ("entrypoint", service.get("entrypoint", [])),
            ("healthcheck", service.get("healthcheck", {}).get("test", [])[1:]),
        ):
            if m.shell_script(command):
                yield f"compose.{name}.{what}", command[0], m.shell_script(command).replace("$$", "$")
