"""What the shop is configured with, unless SHOP_<NAME> in the environment says otherwise.

Settings of smsqueue (SMSQUEUE_...) could stand here as well. They are better in the environment:
the worker and the receivers read them before they load the shop.
"""

import secrets

#: Signs the sessions and hides the codes. This one is new at each start.
SECRET_KEY = secrets.token_hex()

#: Shared by the web processes and the workers.
DATABASE = "shop.sqlite3"

#: Where a carrier simulator serves, and the password of its accounts; "": messages are logged.
SIMULATOR_URL = ""
SIMULATOR_TOKEN = "simulator"  # noqa: S105  nothing is behind a simulator
