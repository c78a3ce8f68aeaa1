"""All processes of a gateway on free ports of this machine, for the demo and the tests."""

from smsqueue.stack.process import Process, StackError, free_port
from smsqueue.stack.redis_server import RedisServer, find_redis
from smsqueue.stack.replicated_redis import ReplicatedRedis
from smsqueue.stack.stack import Stack

__all__ = [
    "Process",
    "RedisServer",
    "ReplicatedRedis",
    "Stack",
    "StackError",
    "find_redis",
    "free_port",
]
