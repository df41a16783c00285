"""Liveness and readiness as kube-apiserver tells them: named checks, one line each with `?verbose`, each with a path of its own.

`/livez` runs the checks that a restart could mend, `/readyz` those and what must be done before the first request is served.
Mirrors apiserver's pkg/server/healthz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

# Returns "" when all is well, else what is wrong (for the log and for verbose output to administrators).
Check = Callable[[], str]


@dataclass(slots=True)
class Health:
    """The checks of one server, by name. `live` ones count for /livez and /healthz too."""

    live: dict[str, Check] = field(default_factory=dict)
    ready: dict[str, Check] = field(default_factory=dict)

    def answer(self, path: str, *, is_verbose: bool, excluded: Iterable[str] = ()) -> tuple[int, str] | None:
        """Return (HTTP code, text) for /healthz, /livez, /readyz or a check below one of them; None for other paths."""
        endpoint, _, name = path.strip("/").partition("/")
        if endpoint not in ("healthz", "livez", "readyz"):
            return None
        checks = self.live | self.ready if endpoint == "readyz" else self.live
        if name:
            check = checks.get(name)
            if check is None:
                return None
            problem = check()
            return (500, f"internal server error: {problem}\n") if problem else (200, "ok")
        skipped = set(excluded)
        lines: list[str] = []
        failed = False
        for one, check in checks.items():
            if one in skipped:
                lines.append(f"[+]{one} excluded: ok")
            elif check():
                failed = True
                lines.append(f"[-]{one} failed: reason withheld")
            else:
                lines.append(f"[+]{one} ok")
        for one in sorted(skipped - set(checks)):
            lines.append(f'warn: some health checks cannot be excluded: no matches for "{one}"')
        if failed:
            return 500, "\n".join([*lines, f"{endpoint} check failed", ""])
        return 200, "\n".join([*lines, f"{endpoint} check passed", ""]) if is_verbose else "ok"

    def problems(self) -> list[str]:
        """Return `name: what is wrong` for every check of readiness that fails."""
        found = ((name, check()) for name, check in (self.live | self.ready).items())
        return [f"{name}: {problem}" for name, problem in found if problem]
