"""``python -m smsqueue.simulator``"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from smsqueue.logs import log_json
from smsqueue.settings import log_format, secret_text
from smsqueue.simulator.server import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a simulator from the command line."""
    parser = argparse.ArgumentParser(
        prog="smsqueue simulator",
        description="A carrier simulator: a message's number selects what happens to it.",
        epilog="The password of all accounts, and the key of the webhooks' signatures, is "
        "SMSQUEUE_SIMULATOR_TOKEN, or the content of the file SMSQUEUE_SIMULATOR_TOKEN_FILE.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8800)
    parser.add_argument(
        "--webhook",
        action="append",
        default=[],
        type=webhook,
        metavar="[ACCOUNT=]URL",
        help="base URL of an account's webhooks: reports go to URL/status, replies to URL/im",
    )
    options = parser.parse_args(arguments)
    if log_format(os.environ) == "json":
        log_json()
    token = secret_text(os.environ, "SMSQUEUE_SIMULATOR_TOKEN") or "simulator"
    serve(dict(options.webhook), token, host=options.host, port=options.port)


def webhook(text: str) -> tuple[str, str]:
    """Parse ``ACCOUNT=URL`` or ``URL``; the default account is ``main``."""
    if text.startswith(("http://", "https://")):
        return "main", text
    account, _, url = text.partition("=")
    if not account or not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("write it as ACCOUNT=http://host:port/PREFIX/PROVIDER")
    return account, url


if __name__ == "__main__":
    main()
