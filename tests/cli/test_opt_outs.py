"""The command ``optout``."""

from __future__ import annotations

from pathlib import Path

from smsqueue import Gateway


def test_add_list_remove(run, run_json) -> None:
    output = run("optout", "add", "+15550001", "--category", "news", "--reason", "by phone").stdout
    assert "added" in output
    assert "15550001" not in output
    assert "already" in run("optout", "add", "+15550001", "--category", "news").stdout
    [item] = run_json("optout", "list", "--reveal")["items"]
    assert (item["number"], item["category"], item["why"]) == ("15550001", "news", "by phone")
    assert run_json("optout", "list", "+15550002")["items"] == []
    assert "15550001" not in run("optout", "list").stdout
    run("optout", "remove", "+15550001")
    run("optout", "remove", "+15550001", code=1)
    assert "no number has opted out" in run("optout", "list").stdout


def test_export_and_import(run, gateway: Gateway, tmp_path: Path) -> None:
    numbers = [f"1555{n:07}" for n in range(100)]
    for number in numbers:
        gateway.opt_out(number, sender="Shop")
    exported = run("optout", "export").stdout
    assert len(exported.splitlines()) == 101
    for number in numbers:
        gateway.opt_in(number)
    file = tmp_path / "numbers.csv"
    file.write_text(exported)
    assert "100 opt-outs added, 0 were" in run("optout", "import", str(file)).stdout
    assert "0 opt-outs added, 100 were" in run("optout", "import", str(file)).stdout
    assert all(gateway.opted_out(number, sender="Shop") for number in numbers)
    assert not gateway.opted_out(numbers[0], sender="Other")


def test_import_adds_what_it_can_read(run, gateway: Gateway) -> None:
    result = run("optout", "import", input="+15550001\n\nINFO\n+15550002,x\n", code=1)
    assert "line 3: " in result.stderr
    assert "2 opt-outs added" in result.stdout
    assert gateway.opted_out("15550002")


def test_import_stops_at_a_line_that_is_no_csv(run, gateway: Gateway) -> None:
    lines = '+15550001\n"+15550002\n+15550003\n'  # the rest would be one cell
    result = run("optout", "import", input=lines, code=1)
    assert "nothing after it was read" in result.stderr
    assert "1 opt-out added" in result.stdout
    assert gateway.opted_out("15550001")
    assert "field larger" in run("optout", "import", input="1" * 200_000, code=1).stderr


def test_an_empty_sender_is_not_all_senders(run, gateway: Gateway) -> None:
    gateway.opt_out("15550001")
    run("optout", "remove", "+15550001", "--sender", "", code=2)
    assert gateway.opted_out("15550001")


def test_mistakes_are_refused(run) -> None:
    run("optout", "add", "INFO", code=2)
    run("optout", "add", "+15550001", "--category", "a b", code=2)
    run("optout", "remove", code=2)
