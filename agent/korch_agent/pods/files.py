"""Files that the agent makes for a pod itself: /etc/hosts, the termination message, log directories, and DNS settings."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from korch_agent.cri.protocol import ContainerStatus, Dns
from korch_agent.pods.observed import Pod, restart_count

TERMINATION_PATH_DEFAULT = "/dev/termination-log"
MESSAGE_BYTES_MAX = 4096
LOG_TAIL_BYTES = 2048
LOG_TAIL_LINES = 80
HOSTNAME_CHARACTERS_MAX = 63
SEARCHES_MAX = 32
NAMESERVERS_MAX = 3

_HOSTS_HEAD = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hostname_of(pod: Pod, *, cluster_domain: str) -> tuple[str, str]:
    """Return the pod's hostname, and its fully qualified name or ""."""
    spec, meta = pod["spec"], pod["metadata"]
    override = spec.get("hostnameOverride")
    if override:
        return override, ""
    hostname = spec.get("hostname") or meta["name"][:HOSTNAME_CHARACTERS_MAX].rstrip("-.")
    qualified = f"{hostname}.{spec['subdomain']}.{meta['namespace']}.svc.{cluster_domain}" if spec.get("subdomain") else ""
    return hostname, qualified


def hosts_file(pod: Pod, ips: tuple[str, ...], *, cluster_domain: str, host_file: Path = Path("/etc/hosts")) -> str:
    """Return the text of /etc/hosts: the node's own with a network of the node, else one with the pod's addresses."""
    if pod["spec"].get("hostNetwork"):
        own = host_file.read_text() if host_file.exists() else ""
        text = "# Kubernetes-managed hosts file (host network).\n" + own
    else:
        hostname, qualified = hostname_of(pod, cluster_domain=cluster_domain)
        names = f"{qualified}\t{hostname}" if qualified else hostname
        text = _HOSTS_HEAD + "".join(f"{ip}\t{names}\n" for ip in ips)
    aliases = pod["spec"].get("hostAliases") or []
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{one['ip']}\t{chr(9).join(one.get('hostnames') or [])}\n" for one in aliases)
    return text


def dns_of(pod: Pod, *, cluster_dns: str, cluster_domain: str, host_file: Path = Path("/etc/resolv.conf")) -> Dns:
    """Return what stands in resolv.conf by dnsPolicy and dnsConfig."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    host = _resolv_conf(host_file)
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    if policy == "None":
        base = Dns()
    elif policy == "Default" or not cluster_dns:
        base = host
    else:
        searches = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain, *host.searches)
        base = Dns(servers=(cluster_dns,), searches=searches, options=("ndots:5",))
    config = spec.get("dnsConfig") or {}
    options = {one.partition(":")[0]: one for one in base.options}
    for one in config.get("options") or []:
        options[one["name"]] = f"{one['name']}:{one['value']}" if one.get("value") is not None else one["name"]
    servers = tuple(dict.fromkeys((*base.servers, *(config.get("nameservers") or ()))))
    searches = tuple(dict.fromkeys((*base.searches, *(config.get("searches") or ()))))
    return Dns(servers=servers[:NAMESERVERS_MAX], searches=searches[:SEARCHES_MAX], options=tuple(options.values()))


def _resolv_conf(file: Path) -> Dns:
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] == "nameserver":
            servers.append(words[1])
        elif len(words) > 1 and words[0] in ("search", "domain"):
            searches = words[1:]
        elif len(words) > 1 and words[0] == "options":
            options += words[1:]
    return Dns(servers=tuple(servers), searches=tuple(one for one in searches if one != "."), options=tuple(options))


def termination_file(pod_dir: Path, name: str, restarts: int) -> Path:
    """Return where the termination message of a container's instance lies on the machine."""
    return pod_dir / "containers" / name / f"termination-{restarts}"


def termination_message(pod_dir: Path, container: Mapping[str, Any] | None, ended: ContainerStatus) -> str:
    """Return what an ended instance left to say: its message file, or the end of its log when it failed without one."""
    file = termination_file(pod_dir, ended.name, restart_count(ended))
    message = ""
    with contextlib.suppress(OSError), file.open("rb") as source:
        message = source.read(MESSAGE_BYTES_MAX).decode(errors="replace")
    wants_log = container is not None and container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    if not message and wants_log and ended.exit_code != 0 and ended.log_path:
        message = _log_tail(Path(ended.log_path))
    return message


def _log_tail(file: Path) -> str:
    try:
        with file.open("rb") as source:
            source.seek(0, 2)
            source.seek(max(0, source.tell() - 4 * LOG_TAIL_BYTES))
            lines = source.read().splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        return ""
    text = b""
    for line in lines:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            text += parts[3] + (b"\n" if parts[2] == b"F" else b"")
    return text[-LOG_TAIL_BYTES:].decode(errors="replace")


def log_directory(logs_dir: Path, pod: Pod) -> Path:
    """Return the directory of a pod's logs; each container's lie in a directory of its name below."""
    meta = pod["metadata"]
    return logs_dir / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"
