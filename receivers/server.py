"""The configuration under which gunicorn serves the receivers. One command starts them:

    gunicorn --config python:receivers.server

Every option of gunicorn may follow, e.g. ``--bind``, ``--workers`` and ``--threads``; an
application of your own is named last: ``gunicorn --config python:receivers.server 'shop:app'``.
"""

from __future__ import annotations

#: What is served unless the command names another application.
wsgi_app = "receivers:create_app()"
#: Reads a request whole before a thread takes it, so that slow clients occupy no thread.
worker_class = "receivers.worker.WholeRequestWorker"
#: Requests that one process works at. A webhook mostly waits for Redis, at worst for a second.
threads = 16
#: Connections that one process keeps open; beyond it, those that have waited longest are closed.
worker_connections = 1000
#: Seconds that requests may still take when the process is asked to end.
graceful_timeout = 30
#: gunicorn would open one in the home folder, the same for all of a user.
control_socket_disable = True
