"""The command line's words for what is switched on: `--feature-gates`, and on a server `--runtime-config`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from korch.api.features import GATES, OPTIONAL_VERSIONS, Features, read_features

_GATES_HELP = f"Features to switch on or off, such as A=true,B=false. Known, and off: {', '.join(GATES)}."
_VERSIONS_HELP = f"API versions to serve that are not served by themselves: {', '.join(f'{one}=true' for one in OPTIONAL_VERSIONS)}."


def feature_options(*, with_versions: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options to a click command, whose function takes them as `features`. Raises click.UsageError for what cannot be."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def gather(feature_gates: tuple[str, ...], runtime_config: tuple[str, ...] = (), **others: Any) -> Any:
            return command(features=_read(feature_gates, runtime_config), **others)

        gather.__doc__ = command.__doc__
        gather.__name__ = command.__name__
        if with_versions:
            gather = click.option("--runtime-config", multiple=True, help=_VERSIONS_HELP)(gather)
        gather = click.option("--feature-gates", multiple=True, help=_GATES_HELP)(gather)
        gather.__click_params__ = getattr(command, "__click_params__", []) + gather.__click_params__  # type: ignore[attr-defined]
        return gather

    return decorate


def hand_on_features(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add both options to a command that hands them on; its function takes them as `feature_arguments`, checked."""

    @feature_options(with_versions=True)
    def check(features: Features) -> None:
        """Refuse what cannot be."""

    def gather(feature_gates: tuple[str, ...], runtime_config: tuple[str, ...], **others: Any) -> Any:
        _read(feature_gates, runtime_config)
        arguments = [f"--feature-gates={one}" for one in feature_gates] + [f"--runtime-config={one}" for one in runtime_config]
        return command(feature_arguments=tuple(arguments), **others)

    gather.__doc__ = command.__doc__
    gather.__name__ = command.__name__
    gather.__click_params__ = getattr(command, "__click_params__", []) + check.__click_params__  # type: ignore[attr-defined]
    return gather


def _read(gates: tuple[str, ...], versions: tuple[str, ...]) -> Features:
    try:
        return read_features(gates, versions)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
