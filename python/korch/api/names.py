"""What names, labels, keys and ports may look like, each rule with upstream's words for breaking it.

Every function takes a value and returns the reasons why it is not valid, an empty list when it is; the caller adds the field.
Mirrors apimachinery's util/validation.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_NAME_PART = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_NAME_PART})?"
_ENV = "[ -<>-~]+"
_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)

LABEL_MAX = 63
SUBDOMAIN_MAX = 253
_PORT_NAME_MAX = 15
# Values that passed a check, for each check, and how long they may be.
_PASSED_MAX = 4096
_PASSED_LENGTH_MAX = 128

Check = Callable[[str], list[str]]


def _remembering(check: Check) -> Check:
    """Remember what has passed: most objects carry the same keys and names as those before them."""
    passed: set[str] = set()

    @functools.wraps(check)
    def checked(value: str) -> list[str]:
        if value in passed:
            return []
        reasons = check(value)
        if not reasons and len(value) <= _PASSED_LENGTH_MAX:
            if len(passed) >= _PASSED_MAX:
                passed.clear()
            passed.add(value)
        return reasons

    return checked


@_remembering
def is_dns_label(value: str) -> list[str]:
    """A lowercase RFC 1123 label: namespaces, containers, volumes."""
    rule = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character"
    )
    if _fits(_SUBDOMAIN, value) and not _fits(_LABEL, value):
        return [*([max_length(LABEL_MAX)] if len(value) > LABEL_MAX else []), "must not contain dots"]
    return _bounded(value, LABEL_MAX, _LABEL, rule, "my-name", "123-abc")


@_remembering
def is_dns_subdomain(value: str) -> list[str]:
    """A lowercase RFC 1123 subdomain: what most names are."""
    return _bounded(value, SUBDOMAIN_MAX, _SUBDOMAIN, _SUBDOMAIN_RULE, "example.com")


def is_dns_1035_label(value: str) -> list[str]:
    """An RFC 1035 label, which starts with a letter: Services."""
    rule = (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
        "and end with an alphanumeric character"
    )
    return _bounded(value, LABEL_MAX, _LABEL_1035, rule, "my-name", "abc-123")


@_remembering
def is_qualified_name(value: str) -> list[str]:
    """A label key, annotation key or resource name: a name of at most 63 characters, perhaps behind a DNS subdomain and a slash."""
    rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    parts = value.split("/")
    if len(parts) > 2:
        why = _regex_error("a valid label key " + rule, _NAME_PART, "MyName", "my.name", "123-abc")
        return [why + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    reasons: list[str] = []
    if len(parts) == 2:
        if not parts[0]:
            reasons.append("prefix part must be non-empty")
        else:
            reasons += [
                f"prefix part {why}" for why in _bounded(parts[0], SUBDOMAIN_MAX, _SUBDOMAIN, _SUBDOMAIN_RULE, "example.com", unit="bytes")
            ]
    name = parts[-1]
    if not name:
        reasons.append("name part must be non-empty")
    elif len(name) > LABEL_MAX:
        reasons.append(f"name part {max_length(LABEL_MAX, 'bytes')}")
    if not _fits(_NAME_PART, name):
        reasons.append("name part " + _regex_error(rule, _NAME_PART, "MyName", "my.name", "123-abc"))
    return reasons


@_remembering
def is_label_value(value: str) -> list[str]:
    rule = (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return _bounded(value, LABEL_MAX, _LABEL_VALUE, rule, "MyValue", "my_value", "12345", unit="bytes")


@_remembering
def is_env_name(value: str) -> list[str]:
    """An environment variable's name: printable ASCII without `=`."""
    rule = "a valid environment variable name must consist only of printable ASCII characters other than '='"
    return [] if _fits(_ENV, value) else [_regex_error(rule, _ENV)]


def is_config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret, which is also a file's name."""
    rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    reasons = _bounded(value, SUBDOMAIN_MAX, _KEY, rule, "key.name", "KEY_NAME", "key-name")
    if value in (".", ".."):
        reasons.append(f"must not be '{value}'")
    elif value.startswith(".."):
        reasons.append("must not start with '..'")
    return reasons


def is_port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


@_remembering
def is_port_name(value: str) -> list[str]:
    """An IANA service name: at most 15 characters, a letter among them."""
    reasons: list[str] = []
    if len(value) > _PORT_NAME_MAX:
        reasons.append(max_length(_PORT_NAME_MAX))
    if not _fits("[-a-z0-9]+", value):
        reasons.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        reasons.append("must contain at least one letter (a-z)")
    if "--" in value:
        reasons.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        reasons.append("must not begin or end with a hyphen")
    return reasons


def is_ip(value: str) -> list[str]:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def is_percent(value: str) -> list[str]:
    rule = "a valid percent string must be a numeric string followed by an ending '%'"
    return [] if _fits(_PERCENT, value) else [_regex_error(rule, _PERCENT, "1%", "93%")]


def is_path_segment(value: str) -> list[str]:
    """A name that may hold anything which fits into one step of a URL path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in value]


def max_length(limit: int, unit: str = "characters") -> str:
    """Return the reason for a text that is too long. Upstream says bytes of label keys and values, characters of all other names."""
    return f"must be no more than {limit} {unit}"


def of_prefix(check: Callable[[str], list[str]], prefix: str) -> list[str]:
    """Check a generateName: a dash at its end is allowed, since a suffix follows."""
    return check(prefix[:-1] + "a" if prefix.endswith("-") else prefix)


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _fits(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


def _bounded(value: str, limit: int, pattern: str, rule: str, *examples: str, unit: str = "characters") -> list[str]:
    reasons = [max_length(limit, unit)] if len(value.encode()) > limit else []
    if not _fits(pattern, value):
        reasons.append(_regex_error(rule, pattern, *examples))
    return reasons


def _regex_error(rule: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{rule} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {listed}regex used for validation is '{pattern}')"
