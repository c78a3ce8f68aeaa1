"""The receivers' configuration of gunicorn. One command starts them:

    gunicorn --config python:receivers.server

All options of gunicorn may follow, e.g. ``--bind``, ``--workers`` and ``--threads``, and last an
application of your own: ``gunicorn --config python:receivers.server 'shop:app'``.
"""

from __future__ import annotations

#: The application, unless the command names another one.
wsgi_app = "receivers:create_app()"
#: Reads whole requests before a thread handles them, so that slow clients occupy no thread.
worker_class = "receivers.gunicorn_worker.WholeRequestWorker"
#: Concurrent requests of one process. A webhook mostly waits for Redis, for a second at most.
threads = 16
#: Most open connections of one process; if there are more, the longest idle ones are closed.
worker_connections = 1000
#: Its own lines are JSON if SMSQUEUE_LOG says so.
logger_class = "receivers.gunicorn_log.GunicornLogger"
#: Seconds for requests to finish when the process is asked to end.
graceful_timeout = 30
#: gunicorn would open one in the home folder, shared by all of a user's processes.
control_socket_disable = True
