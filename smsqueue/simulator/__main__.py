"""``python -m smsqueue.simulator``"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from smsqueue.settings import secret_text
from smsqueue.simulator.server import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a simulator from the command line."""
    parser = argparse.ArgumentParser(
        prog="smsqueue simulator",
        description="A carrier simulator: magic numbers decide what happens to a message.",
        epilog="SMSQUEUE_SIMULATOR_TOKEN (or the file that SMSQUEUE_SIMULATOR_TOKEN_FILE names): "
        "password of the accounts, and key of the signatures.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8800)
    parser.add_argument(
        "--webhook",
        action="append",
        default=[],
        type=webhook,
        metavar="[ACCOUNT=]URL",
        help="where an account's reports and replies go: URL/status and URL/im",
    )
    given = parser.parse_args(arguments)
    token = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"
    serve(dict(given.webhook), token, host=given.host, port=given.port)


def webhook(text: str) -> tuple[str, str]:
    """``main=http://...`` or ``http://...``, which is account main's."""
    if text.startswith(("http://", "https://")):
        return "main", text
    account, _, url = text.partition("=")
    if not account or not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("write it as ACCOUNT=http://host:port/PREFIX/PROVIDER")
    return account, url


if __name__ == "__main__":
    main()
