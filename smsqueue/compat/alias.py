"""``import smsframework`` as another name for smsqueue, for applications that drop the former."""

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
#: Modules that go by another name here. The first five are hidden behind classes of their name,
#: there as here: the import system would put the module in the place of the class.
_OTHERS = {
    "Gateway": "gateway",
    "IProvider": "providers.base",
    "data.IncomingMessage": "message.messages",
    "data.OutgoingMessage": "message.messages",
    "data.MessageStatus": "message.statuses",
}


def install_as_smsframework() -> None:
    """From now on ``import smsframework``, and all below it, means smsqueue's own modules.

    Call it before anything imports smsframework or one of its plugins, for example at the top
    of the module that makes the gateway. Calling it again does no harm.

    Raises:
        RuntimeError: smsframework was imported already.
    """
    there = sys.modules.get(_ALIAS)
    if there is sys.modules[_REAL]:
        return
    early = sorted(name for name in sys.modules if name.startswith((f"{_ALIAS}.", f"{_ALIAS}_")))
    if there is not None or early:
        where = getattr(there or sys.modules[early[0]], "__file__", None)
        raise RuntimeError(
            f"{_ALIAS if there else early[0]} was imported already, from {where}: call "
            "install_as_smsframework() before anything imports smsframework or its plugins"
        )
    sys.meta_path.insert(0, _Finder())
    for name, ours in {"": "", **_OTHERS}.items():
        alias = f"{_ALIAS}.{name}".rstrip(".")
        sys.modules[alias] = importlib.import_module(f"{_REAL}.{ours}".rstrip("."))


class _Finder(MetaPathFinder):
    """Finds smsframework's modules among ours; nobody else may, or they would load twice."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{_ALIAS}."):
            return None
        ours = _REAL + name.removeprefix(_ALIAS)
        if importlib.util.find_spec(ours) is None:
            raise ModuleNotFoundError(
                f"there is no {name!r}: {_ALIAS} stands for {_REAL} here, which has no {ours!r}",
                name=name,
            )
        return ModuleSpec(name, _Loader(importlib.import_module(ours)))


class _Loader(Loader):
    """Hands out a module that is loaded."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just marked it as the other one: reloading it must find it.
        module.__spec__ = self._spec
