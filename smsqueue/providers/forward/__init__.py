"""Two applications bound together: a client without provider accounts sends through a server.

See docs/forward.md.
"""

from smsqueue.providers.forward.client import ForwardClientProvider
from smsqueue.providers.forward.server import ForwardServerProvider

__all__ = ["ForwardClientProvider", "ForwardServerProvider"]
