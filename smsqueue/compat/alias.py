"""Makes ``import smsframework`` import smsqueue, for applications that no longer install it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["install_as_smsframework"]

_ALIAS, _REAL = "smsframework", "smsqueue"
#: Modules that have another name in smsqueue. They are imported at once: a class of the same name
#: hides each of them in its package, and a later import would replace the class by the module.
_RENAMED = {
    "Gateway": "gateway",
    "IProvider": "providers.base.provider",
    "data.IncomingMessage": "message.messages",
    "data.OutgoingMessage": "message.messages",
    "data.MessageStatus": "message.statuses",
}


def install_as_smsframework() -> None:
    """Make ``import smsframework``, and all modules below it, import smsqueue's own modules.

    Call it before anything imports smsframework or one of its plugins, for example at the top
    of the module that makes the gateway. Further calls have no effect.

    Raises:
        RuntimeError: smsframework or one of its plugins was imported already.
    """
    loaded = sys.modules.get(_ALIAS)
    if loaded is sys.modules[_REAL]:
        return
    early = sorted(name for name in sys.modules if name.startswith((f"{_ALIAS}.", f"{_ALIAS}_")))
    if loaded is not None or early:
        path = getattr(loaded or sys.modules[early[0]], "__file__", None)
        raise RuntimeError(
            f"{_ALIAS if loaded else early[0]} was imported already, from {path}: call "
            "install_as_smsframework() before anything imports smsframework or its plugins"
        )
    sys.meta_path.insert(0, _AliasFinder())
    for name, real_name in {"": "", **_RENAMED}.items():
        alias = f"{_ALIAS}.{name}".rstrip(".")
        sys.modules[alias] = importlib.import_module(f"{_REAL}.{real_name}".rstrip("."))


class _AliasFinder(MetaPathFinder):
    """Finds modules of the alias in smsqueue; it refuses others, which would be loaded twice."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{_ALIAS}."):
            return None
        real_name = _REAL + name.removeprefix(_ALIAS)
        if importlib.util.find_spec(real_name) is None:
            raise ModuleNotFoundError(
                f"no module named {name!r}: {_ALIAS} is an alias of {_REAL} here, which has no "
                f"{real_name!r}",
                name=name,
            )
        return ModuleSpec(name, _LoadedModule(importlib.import_module(real_name)))


class _LoadedModule(Loader):
    """Returns a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has set the alias's spec; importlib.reload() needs the real one.
        module.__spec__ = self._spec
