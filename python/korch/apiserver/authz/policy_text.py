"""Rules as text: one a line, verbs before the colon, resources or URL paths behind it.

    get,list,watch: pods pods/log deployments.apps
    get,update: leases.coordination.k8s.io [korch-scheduler]
    get: /healthz /livez/*

A resource is written as kubectl writes it, `plural[/subresource][.group]`; `*.*` is every resource of every group, `/**` every
path. Names in brackets are resourceNames. `rw` stands for all verbs of reading and writing, `read` and `write` for its halves.
"""

from __future__ import annotations

from korch.apiserver.authz.rules import Rule

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_WORDS = {"read": _READ, "write": _WRITE, "rw": (*_READ, *_WRITE)}


def parse_rules(text: str) -> list[Rule]:
    """Return the rules of a text, one for each group that a line names. Raises ValueError for a line without a colon."""
    return [rule for line in text.splitlines() if line.strip() for rule in _parse_line(line.strip())]


def _parse_line(line: str) -> list[Rule]:
    head, _, rest = line.partition(": ")
    if not rest:
        raise ValueError(f"no colon in the rule {line!r}")
    verbs = frozenset(verb for word in head.split(",") for verb in _WORDS.get(word, (word,)))
    things, _, names = rest.partition("[")
    wanted = frozenset(names.rstrip("]").split())
    urls = tuple("*" if one == "/**" else one for one in things.split() if one.startswith("/"))
    rules = [Rule(verbs, urls=urls)] if urls else []
    by_group: dict[str, set[str]] = {}
    for thing in things.split():
        if not thing.startswith("/"):
            resource, _, group = thing.partition(".")
            by_group.setdefault(group, set()).add(resource)
    return rules + [Rule(verbs, frozenset({group}), frozenset(resources), wanted) for group, resources in by_group.items()]
