"""The command line's words for who is believed, what is told of requests, and how many are served at once: kube-apiserver's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from korch.api.go_duration import parse_duration
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.audit.log_file import LogFile, LogOptions
from korch.apiserver.audit.policy import BadPolicy, Policy, load
from korch.apiserver.flowcontrol.flow_control import SEATS_DEFAULT
from korch.apiserver.guards import REQUEST_TIMEOUT_S_DEFAULT
from korch.cmd import authentication_options
from korch.cmd.authentication_options import AuthenticationOptions
from korch.runtime.clock import Clock

_OPTIONS = (
    click.option("--audit-policy-file", default="", help="YAML file: which requests are told of (audit.k8s.io/v1 Policy)."),
    click.option("--audit-log-path", default="", help="File for audit events, one JSON object a line; - is standard output."),
    click.option("--audit-log-maxage", default=0, show_default=True, help="Days to keep older audit logs; 0 keeps all."),
    click.option("--audit-log-maxbackup", default=0, show_default=True, help="Older audit logs to keep; 0 keeps all."),
    click.option("--audit-log-maxsize", default=0, show_default=True, help="Megabytes after which a new audit log begins; 0 is 100."),
    click.option("--max-requests-inflight", default=400, show_default=True, help="With the next, the seats that priority levels share."),
    click.option("--max-mutating-requests-inflight", default=200, show_default=True, help="See --max-requests-inflight."),
    click.option(
        "--enable-priority-and-fairness/--no-enable-priority-and-fairness", default=True, help="Let flows of requests take turns."
    ),
    click.option("--request-timeout", default="1m0s", show_default=True, help="How long a request may take that is not long-running."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """What these options say. `seats` 0: no priority and fairness."""

    audit_policy_file: str = ""
    audit_log: LogOptions = field(default_factory=lambda: LogOptions(path=""))
    seats: int = SEATS_DEFAULT
    request_timeout_s: float = REQUEST_TIMEOUT_S_DEFAULT
    authentication: AuthenticationOptions = field(default_factory=AuthenticationOptions)

    def policy(self) -> Policy | None:
        """Return the audit policy, None when nothing is told of. Raises click.ClickException for a bad one."""
        if not self.audit_policy_file:
            return None
        try:
            policy = load(Path(self.audit_policy_file))
        except BadPolicy as error:
            raise click.ClickException(f"loading audit policy file: {error}") from error
        return policy if self.audit_log.path else None

    def auditor(self, clock: Clock) -> Auditor | None:
        """Return what tells of requests, None when nothing does. Raises click.ClickException for a bad policy or log."""
        policy = self.policy()
        if policy is None:
            return None
        try:
            return Auditor(policy, LogFile(self.audit_log, clock).write, clock)
        except OSError as error:
            raise click.ClickException(f"ensureLogFile: {error}") from error


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command, whose function takes them as `access`. Raises click.UsageError for what cannot be."""

    def gather(
        audit_policy_file: str,
        audit_log_path: str,
        audit_log_maxage: int,
        audit_log_maxbackup: int,
        audit_log_maxsize: int,
        max_requests_inflight: int,
        max_mutating_requests_inflight: int,
        enable_priority_and_fairness: bool,
        request_timeout: str,
        **others: Any,
    ) -> Any:
        for name, number in (
            ("--audit-log-maxage", audit_log_maxage),
            ("--audit-log-maxbackup", audit_log_maxbackup),
            ("--audit-log-maxsize", audit_log_maxsize),
            ("--max-requests-inflight", max_requests_inflight),
            ("--max-mutating-requests-inflight", max_mutating_requests_inflight),
        ):
            if number < 0:
                raise click.UsageError(f"{name} {number} can't be negative number")
        if audit_log_path and not audit_policy_file:
            raise click.UsageError("--audit-log-path does nothing without --audit-policy-file")
        try:
            timeout_s = parse_duration(request_timeout)
        except ValueError as error:
            raise click.UsageError(f"--request-timeout: {error}") from error
        if timeout_s <= 0:
            raise click.UsageError("--request-timeout must be more than 0")
        log = LogOptions(path=audit_log_path, max_age_days=audit_log_maxage, max_parts=audit_log_maxbackup, max_size_mb=audit_log_maxsize)
        access = AccessOptions(
            audit_policy_file=audit_policy_file,
            audit_log=log,
            seats=max_requests_inflight + max_mutating_requests_inflight if enable_priority_and_fairness else 0,
            request_timeout_s=timeout_s,
            authentication=authentication_options.read({name: others.pop(name) for name in authentication_options.NAMES}),
        )
        # A bad policy is told of before anything is opened.
        access.policy()
        return command(access=access, **others)

    gather.__doc__ = command.__doc__
    gather.__name__ = command.__name__
    for option in reversed((*_OPTIONS, *authentication_options.OPTIONS)):
        gather = option(gather)
    gather.__click_params__ = getattr(command, "__click_params__", []) + gather.__click_params__  # type: ignore[attr-defined]
    return gather
