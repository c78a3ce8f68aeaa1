"""The benchmark's own logic: how it counts, and what it says of what it cannot measure."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from benchmarks.__main__ import MEASUREMENTS, main
from benchmarks.kannel import measure_kannel
from benchmarks.measured_figures import NotMeasured, absolute, compared
from benchmarks.report import as_markdown
from benchmarks.stage import Stage
from benchmarks.stub_client import Provider, rate
from smsqueue.stack import StackError

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Stage(quick=True, told=lambda what: None) as stage:
        yield stage.provider()


def post(provider: Provider, text: str) -> requests.Response:
    message = {"to": "15550001", "text": text}
    return requests.post(f"{provider.url}/messages", json=message, timeout=10, proxies={"http": ""})


def test_the_page_names_all_measurements() -> None:
    [line] = re.findall(r'^\$ make bench ARGS="--only .*# one: (.*)$', PAGE, re.M)
    assert line.split(", ") == list(MEASUREMENTS)


def test_the_page_shows_a_table_as_it_is_printed() -> None:
    rates = [(700.0, 100.0), (720.0, 90.0), (640.0, 100.0)]
    figures = [
        compared("delivery", "one worker", "", "/s", rates, at_least=7.0),
        absolute("cpu", "CPU, one worker", "", "s", [0.71, 0.7], at_most=0.6),
    ]
    _, _, heading, line, delivery, cpu = as_markdown({}, figures).splitlines()
    assert delivery == "| `one worker` | 700/s | 100/s | 7.00 | 6.40 .. 8.00 | >= 7 | yes |"
    assert cpu == "| `CPU, one worker` | 0.705 s |  |  | 0.70 .. 0.71 | <= 0.6 | no |"
    assert f"\n{heading}\n{line}\n| `send()` |" in PAGE


def test_a_rate_leaves_out_the_first_and_the_last_tenth() -> None:
    steady = [10 + i / 100 for i in range(80)]
    assert rate([*[0.0] * 10, *steady, *[99.0] * 10]) == pytest.approx(100)


def test_a_rate_counts_only_what_came_when_all_was_ready() -> None:
    early, steady = [5.0] * 20, [10 + i / 100 for i in range(80)]
    assert rate([*early, *steady], since=9) == pytest.approx(100)
    with pytest.raises(StackError, match="60 of 100 messages were sent before"):
        rate([*early, *steady], since=10.399)


def test_the_stub_notices_a_message_that_comes_twice(provider: Provider) -> None:
    provider.clear()
    ids = {post(provider, text).json()["id"] for text in ("one", "two", "one")}
    assert len(ids) == 3
    assert provider.state() == (3, 3, 1, 0)
    with pytest.raises(StackError, match="3 requests came for 2 messages"):
        provider.wait_for_answers(2, lambda: None)


def test_the_stub_refuses_a_single_message_once(provider: Provider) -> None:
    provider.clear()
    answers = [post(provider, "single refused 1").status_code for _ in range(3)]
    assert answers == [500, 202, 202]
    assert list(provider.singles()) == ["single refused 1"]
    assert (provider.state().repeated, provider.state().single_requests) == (1, 3)


def test_the_stub_keeps_answers_back_until_they_are_released(provider: Provider) -> None:
    provider.clear()
    provider.hold()
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{provider.url}/kannel?to=1", timeout=0.5, proxies={"http": ""})
    assert (provider.state().requests, provider.state().answered) == (1, 0)
    provider.release()
    assert provider.state().answered == 1
    answer = requests.get(f"{provider.url}/kannel?to=2", timeout=10, proxies={"http": ""})
    assert answer.text == "Sent."


def test_kannel_that_is_not_on_path_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "smsbox").write_text("#!/bin/sh\n")
    (tmp_path / "smsbox").chmod(0o755)
    with Stage(quick=True, told=lambda what: None) as stage:
        [line] = measure_kannel(stage)
    assert isinstance(line, NotMeasured)
    assert line.reason.startswith("bearerbox not found on PATH (apt-get install kannel")


def test_plots_without_matplotlib_say_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--plot"])
    assert main() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "--plot needs matplotlib, which is not installed: "
        ".venv/bin/pip install --require-hashes -r requirements/plot.txt"
    )
