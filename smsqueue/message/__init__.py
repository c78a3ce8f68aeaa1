"""Messages, their states and reports, addresses, and how the ledger stores them."""
