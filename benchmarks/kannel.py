"""Delivering with two workers, beside Kannel: the open source SMS gateway that is written in C.

Kannel is two programs: ``smsbox`` takes messages over HTTP and hands them to ``bearerbox``, which
keeps them (one file for each) and sends them.
"""

from __future__ import annotations

import http.client
import re
import shutil
import threading
import time
import urllib.parse
from collections.abc import Iterator

from benchmarks.backlogs import deliver_backlog
from benchmarks.measured_figures import Figure, NotMeasured, compared
from benchmarks.resources import cpu_seconds, resident_bytes
from benchmarks.sending import BODY
from benchmarks.stage import Stage
from benchmarks.stub_client import Provider, rate
from smsqueue.stack import Process, StackError
from smsqueue.stack.process import free_ports

__all__ = ["measure_kannel"]

_PROGRAMS = ("bearerbox", "smsbox")
#: Messages that Kannel may have in flight, by its configuration.
_IN_FLIGHT = 1000
#: Seconds that Kannel may take to count what was answered.
_PATIENCE = 30.0
#: Clients that hand messages to Kannel, each over a connection of its own.
_CLIENTS = 20
_STATUS = "/status.txt?password=benchmark"

_CONFIGURATION = """\
group = core
admin-port = {admin}
admin-password = benchmark
admin-allow-ip = "127.0.0.1"
smsbox-port = {box}
box-allow-ip = "127.0.0.1"
store-type = spool
store-location = {folder}
sms-outgoing-queue-limit = 10000000
log-level = 2

group = smsc
smsc = http
smsc-id = stub
system-type = kannel
send-url = {url}/kannel
port = {receiving}
smsc-username = benchmark
smsc-password = benchmark
connect-allow-ip = "127.0.0.1"
max-pending-submits = {in_flight}

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sending}
log-level = 2

group = sendsms-user
username = benchmark
password = benchmark
"""


def measure_kannel(stage: Stage) -> Iterator[Figure | NotMeasured]:
    """The rates of both, in turn, through the same provider."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        yield NotMeasured(
            "kannel",
            "two workers, beside Kannel",
            f"{' and '.join(missing)} not found on PATH (apt-get install kannel; Debian has them "
            "in /usr/sbin)",
        )
        return
    server, provider = stage.redis(), stage.provider()
    count, rounds = stage.size(20_000, 6000), stage.size(3, 1)
    rates: list[tuple[float, float]] = []
    for i in range(rounds):
        stage.told(f"round {i + 1} of {rounds}, smsqueue")
        ours = deliver_backlog(stage, server, provider, count, processes=2)
        stage.told(f"round {i + 1} of {rounds}, Kannel")
        kannel_rate, kannel_cpu = _deliver(stage, provider, count, name=f"kannel-{i}")
        rates.append((ours.rate, kannel_rate))
    yield compared(
        "kannel",
        "two workers",
        "deliveries per second, beside Kannel",
        "/s",
        rates,
        at_least=1.2,
        notes={
            "messages": count,
            "CPU s per 1,000, workers and Redis": round(ours.cpu, 3),
            "CPU s per 1,000, Kannel, accepting included": round(kannel_cpu, 3),
            "in flight, Kannel": _IN_FLIGHT,
        },
    )


def _deliver(stage: Stage, provider: Provider, count: int, *, name: str) -> tuple[float, float]:
    """Deliver so many messages with Kannel: messages per second at the provider, and CPU seconds
    per 1,000 messages.

    Kannel sends as soon as it runs, so the provider keeps its answers back while messages are put
    in.
    """
    provider.clear()
    provider.hold()
    programs, admin, port = _start(stage, provider, name)
    before = sum(map(cpu_seconds, programs))
    _put_in(port, count)
    released = time.monotonic()
    recorder = stage.record(
        "Backlog, Kannel", {"Kannel, RSS": lambda: sum(map(resident_bytes, programs))}
    )
    provider.release()
    provider.wait_for_answers(count, lambda: _check(programs))
    _wait_until_sent(admin, count)
    cpu = sum(map(cpu_seconds, programs)) - before
    times = provider.times()
    if recorder:
        stage.keep(recorder.stop(times, []))
    for program in reversed(programs):
        stage.end(program)
    return rate(times, since=released), 1000 * cpu / count


def _start(stage: Stage, provider: Provider, name: str) -> tuple[list[Process], int, int]:
    """Start both programs; the ports where bearerbox tells its state and smsbox takes messages."""
    folder = stage.folder / name
    folder.mkdir()
    admin, box, receiving, sending = free_ports(4)
    file = folder / "kannel.conf"
    file.write_text(
        _CONFIGURATION.format(
            admin=admin,
            box=box,
            receiving=receiving,
            sending=sending,
            folder=folder,
            url=provider.url,
            in_flight=_IN_FLIGHT,
        )
    )
    ports = {"bearerbox": (admin, _STATUS), "smsbox": (sending, "/")}
    programs = [
        stage.program(
            f"{name}-{program}",
            [program, str(file)],
            environment={},
            ready=lambda process, program=program: bool(_page(*ports[program])),  # type: ignore[misc]
        )
        for program in _PROGRAMS
    ]
    return programs, admin, sending


def _page(port: int, path: str) -> str:
    """What a program of Kannel answers; "": it does not yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode('utf-8', 'replace')}"
    except OSError:
        return ""
    finally:
        connection.close()


def _wait_until_sent(admin: int, count: int) -> None:
    """Wait until Kannel itself counts so many messages as sent."""
    deadline, page = time.monotonic() + _PATIENCE, ""
    while not re.search(rf"SMS: received [^\n]* sent {count} ", page):
        if time.monotonic() > deadline:
            raise StackError(f"Kannel does not count {count} messages as sent\n{page}")
        time.sleep(0.1)
        page = _page(admin, _STATUS)


def _put_in(port: int, count: int) -> None:
    """Hand messages to smsbox, which answers when bearerbox has kept them."""
    text = urllib.parse.quote_plus(BODY)
    path = f"/cgi-bin/sendsms?username=benchmark&password=benchmark&from=1000&text={text}&to="
    errors: list[BaseException] = []

    def hand_over(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            for i in range(first, count, _CLIENTS):
                connection.request("GET", f"{path}1555{i:07}")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 202:
                    raise StackError(f"Kannel answered {answer.status} to a message")
        except (OSError, http.client.HTTPException, StackError) as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=hand_over, args=(i,)) for i in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise StackError(f"Kannel did not take all messages: {errors[0]}")


def _check(programs: list[Process]) -> None:
    for program in programs:
        if not program.alive:
            raise StackError(f"{program.name} has ended\n{program.tail()}")
