"""Where a message is sent (router) and what an error means for it (retry)."""
