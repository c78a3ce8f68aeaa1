"""Errors on their way: by the name of their class, with their facts."""

from __future__ import annotations

from typing import Any

from smsqueue import exc
from smsqueue.policy.retry import error_label
from smsqueue.providers.answer import MAX_RETRY_AFTER
from smsqueue.providers.forward.fields import number

__all__ = ["dump_facts", "known", "load_facts", "portable"]

#: What a client may raise. Those of the ledger speak of the client's own.
_CLASSES: dict[str, type[exc.ProviderError]] = {
    each.__name__: each
    for each in vars(exc).values()
    if isinstance(each, type)
    and issubclass(each, exc.ProviderError)
    and not issubclass(each, exc.QueueUnavailable)
}
_LONGEST, _LONGEST_CODE = 300, 64


def known(name: Any) -> type[exc.ProviderError] | None:
    """A class of :mod:`smsqueue.exc` that may travel; None if there is none of that name."""
    return _CLASSES.get(name) if isinstance(name, str) else None


def portable(error: BaseException) -> exc.ProviderError:
    """An error as the other side is to get it.

    What no provider reports (a plugin's KeyError) leaves open whether the message went out.
    """
    if isinstance(error, exc.QueueUnavailable):
        return exc.ServerError(
            "the server could not record it", code="QueueUnavailable", retry_after=10.0,
            ambiguous=error.ambiguous,
        )  # fmt: skip
    if isinstance(error, exc.ProviderError):
        return error
    return exc.ServerError(f"the server failed: {type(error).__name__}", ambiguous=True)


def dump_facts(error: exc.ProviderError) -> dict[str, Any]:
    """Class, code, retry_after, ambiguous and text of an error."""
    code = error.code
    return {
        "class": error_label(error),
        "code": code if code is None or isinstance(code, int) else str(code)[:_LONGEST_CODE],
        "retry_after": error.retry_after,
        "ambiguous": bool(error.ambiguous),
        "text": str(error)[:_LONGEST],
    }


def load_facts(fields: dict[str, Any]) -> exc.ProviderError | None:
    """The error that was written; None if it cannot be read, so that HTTP has to tell."""
    kind, code = known(fields.get("class")), fields.get("code")
    if kind is None or not isinstance(fields.get("ambiguous"), bool):
        return None
    try:
        retry_after = number(fields.get("retry_after"), "retry_after", MAX_RETRY_AFTER)
    except ValueError:
        return None
    return kind(
        str(fields.get("text") or "the server refused it")[:_LONGEST],
        code=code if isinstance(code, str | int) and len(str(code)) <= _LONGEST_CODE else None,
        retry_after=retry_after,
        ambiguous=fields["ambiguous"],
    )
