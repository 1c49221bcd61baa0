#!/usr/bin/env python3
"""Prints the arguments with which `docker run` runs a container as a pod of the cluster would.
Each ends with a zero byte.

    pod_options.py MANIFEST KIND/NAME CONTAINER DIRECTORY

MANIFEST is a file of k8s/overlays. User, root file system, capabilities, memory, environment,
image, command and volumes are those of the manifest. A volume is a directory below DIRECTORY,
made for the pod's group like a volume with fsGroup. The Secret is DIRECTORY/secret.yaml.
"""
import os
import re
import sys

import yaml

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load(path):
    with open(path, encoding='utf-8') as file:
        return list(yaml.safe_load_all(file))


def find(objects, kind, name):
    return next(o for o in objects if o['kind'] == kind and o['metadata']['name'] == name)


def environment(container, sources):
    values = {}
    for variable in container.get('env', []):
        if 'valueFrom' in variable:
            (how, ref), = variable['valueFrom'].items()
            values[variable['name']] = sources[how, ref['name']][ref['key']]
        else:
            values[variable['name']] = expand(variable['value'], values)
    return values


def expand(text, values):
    return re.sub(r'\$\((\w+)\)', lambda m: values[m.group(1)], text)


def make_volume(path, uid, gid):
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chown(path, uid, gid)
        os.chmod(path, 0o2770)


def megabytes(quantity):
    number, unit = re.fullmatch(r'(\d+)(Mi|Gi)', quantity).groups()
    return int(number) * {'Mi': 1, 'Gi': 1024}[unit]


def options(manifest, workload, name, directory):
    kind, _, pod_name = workload.partition('/')
    template = find(load(manifest), kind, pod_name)['spec']['template']['spec']
    container = next(c for c in template['containers'] if c['name'] == name)
    config = load(TOP + '/k8s/base/phase-0/platform-config.yaml')[0]
    secret = load(directory + '/secret.yaml')[0]
    sources = {('configMapKeyRef', config['metadata']['name']): config['data'],
               ('secretKeyRef', secret['metadata']['name']): secret['stringData']}
    user, security = template['securityContext'], container['securityContext']
    values = environment(container, sources)

    found = ['--user=%d:%d' % (user['runAsUser'], user['runAsGroup']),
             '--memory=%dm' % megabytes(container['resources']['limits']['memory'])]
    found += ['--cap-drop=' + what for what in security['capabilities']['drop']]
    found += ['--read-only'] * security['readOnlyRootFilesystem']
    found += ['--security-opt=no-new-privileges'] * (not security['allowPrivilegeEscalation'])
    found += ['--env=%s=%s' % item for item in values.items()]
    for mount in container.get('volumeMounts', []):
        path = '%s/%s/%s' % (directory, pod_name, mount['name'])
        make_volume(path, user['runAsUser'], user['runAsGroup'])
        found.append('--volume=%s:%s' % (path, mount['mountPath']))
    command = [expand(text, values) for text in container.get('command', [])]
    arguments = [expand(text, values) for text in container.get('args', [])]
    found += ['--entrypoint=' + text for text in command[:1]]
    return found + [container['image']] + command[1:] + arguments


if __name__ == '__main__':
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.stdout.write(''.join(text + '\0' for text in options(*sys.argv[1:])))
