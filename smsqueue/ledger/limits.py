"""How much one call of the ledger handles."""

from __future__ import annotations

__all__ = ["GROUP_LIMIT"]

#: Maximum number of messages or events that are claimed, begun, settled or accepted in one call.
GROUP_LIMIT = 64
