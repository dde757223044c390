"""Where one can publish to: what a user may give as `publish`.

Enter: a Tiled client, an address, a profile name, a callable, or a list of these. Leave: a list of
targets, told apart.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from tiled.client.base import BaseClient

from ..errors import ConfigurationError
from .catalog import Attempt
from .connection import address_of

Publish = Callable[[str, Mapping[str, Any]], Any]
Target: TypeAlias = BaseClient | str | Publish


@runtime_checkable
class Elsewhere(Protocol):
    """A target that is not reached from here; somebody else knows it, and its runs."""

    def __call__(self, name: str, doc: Mapping[str, Any], /) -> Any: ...

    def sink(self) -> Publish:
        """A callable for the documents of one run; it may have `waiting` and `finish`, as a
        `Postman` has."""

    def attempts(self, derivation: str) -> list[Attempt]:
        """The attempts that are known there."""

    def find_run(self, uid: str) -> Any:
        """An archived run that is there, or None."""


def as_targets(targets: Target | Iterable[Target]) -> list[Target]:
    """One target or several as a list.

    Raises
    ------
    ConfigurationError
        A target that is neither a Tiled client, nor a string, nor callable.
    """
    single = isinstance(targets, BaseClient | str) or not isinstance(targets, Iterable)
    targets = [targets] if single or callable(targets) else list(targets)
    for target in targets:
        if not (isinstance(target, BaseClient | str) or callable(target)):
            raise ConfigurationError(
                "publish: expected a Tiled client, an address, a profile name or a callable "
                f"that takes (name, doc), got {type(target).__name__}"
            )
    return targets


def name_of(target: BaseClient | str) -> str:
    return target if isinstance(target, str) else address_of(target)


def is_callable(target: Target) -> TypeGuard[Publish]:
    return callable(target) and not isinstance(target, BaseClient)
