"""What the documentation says is true: of settings, targets, keys, links and examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from smsqueue import Settings
from smsqueue.cli import main
from smsqueue.message.states import State
from smsqueue.simulator.magic_numbers import NUMBERS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = [
    *(path for name in ("smsqueue", "scripts") for path in (ROOT / name).rglob("*.*")),
    ROOT / "Makefile",
]


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def all_text() -> str:
    return "\n".join(page.read_text("utf-8") for page in PAGES)


def blocks() -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
            line = text.count("\n", 0, match.start()) + 2
            where = f"{page.relative_to(ROOT)}:{line}"
            # The lines before it are kept empty, so that an error names the page's line.
            found.append(pytest.param("\n" * (line - 1) + match[1], where, id=where))
    return found


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def test_all_pages_are_there() -> None:
    assert {page.name for page in PAGES} >= {
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "api.md", "design.md", "flower.md"),
        *("hooks.md", "operations.md", "receivers.md", "simulator.md"),
    }


@pytest.mark.parametrize(("code", "where"), blocks())
def test_an_example_compiles(code: str, where: str) -> None:
    compile(code, where, "exec")


@pytest.mark.parametrize(
    ("code", "where"),
    [block for block in blocks() if "eager=True" in block.values[0]],
)
def test_an_eager_example_runs_without_redis_and_settings(
    code: str, where: str, tmp_path: Path
) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SMSQUEUE_")}
    clean |= {"PYTHONPATH": str(ROOT), "SMSQUEUE_REDIS_URL": "redis://127.0.0.1:1/0"}
    script = tmp_path / "example.py"
    script.write_text(code, "utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert run.returncode == 0, f"{where}\n{run.stderr}"


def test_the_readme_shows_a_gateway_that_a_worker_can_load(tmp_path: Path) -> None:
    [module] = re.findall(
        r"^```python\n(# shop_sms\.py\n.*?)^```$", text_of("README.md"), re.M | re.S
    )
    (tmp_path / "shop_sms.py").write_text(module, "utf-8")
    check = (
        "from smsqueue import Settings; from smsqueue.configuration.loader import load_gateway; "
        "gateway = load_gateway(Settings(gateway='shop_sms:gateway'), queued=True); "
        "print(*gateway.providers, len(gateway.onReceive), len(gateway.onStatus))"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SMSQUEUE_")}
    clean["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert run.stdout.split() == ["primary", "backup", "1", "1"], run.stderr


def test_the_readme_states_how_many_test_functions_make_test_runs() -> None:
    functions = 0
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.relative_to(ROOT / "tests").parts[0] in ("chaos", "fuzz", "packaging"):
            continue  # other targets run these
        functions += len(re.findall(r"^ *def test_\w+\(", path.read_text("utf-8"), re.M))
    [stated] = re.findall(r"`make test` runs about ([\d,]+) test functions", text_of("README.md"))
    assert functions == pytest.approx(int(stated.replace(",", "")), rel=0.05)


def test_every_variable_is_documented_and_every_documented_one_exists() -> None:
    named = set(re.findall(r"\bSMSQUEUE_[A-Z_]*[A-Z]\b", all_text()))
    documented = {name for name in named if not name.startswith("SMSQUEUE_PROVIDER_")}
    settings = {each.metadata["variable"] for each in fields(Settings)}
    sources = "\n".join(
        path.read_text("utf-8")
        for path in SOURCES
        if path.suffix in (".py", ".sh") or path.name == "Makefile"
    )
    # A file may hold a secret setting. A few variables are read only by scripts or the simulator.
    files = {
        f"{each.metadata['variable']}_FILE" for each in fields(Settings) if each.metadata["secret"]
    }
    others = files | set(re.findall(r"\bSMSQUEUE_[A-Z_]*[A-Z]\b", sources))
    assert settings - documented == set()
    files = {f"{name}_FILE" for name in settings}
    assert documented - settings - files - others == set()


def test_the_table_of_settings_tells_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SMSQUEUE_")]:
        monkeypatch.delenv(name)
    rows = re.findall(r"^\| `(SMSQUEUE_\w+)` \| `(\w+)` \| (.*?) \|", text_of("docs/api.md"), re.M)
    settings = Settings()

    def shown(value: object) -> str:
        if value in ("", ()):
            return ""
        if isinstance(value, bool | float) and value == int(value):
            value = int(value)
        return f"`{value}`"

    expected = [
        (each.metadata["variable"], each.name, shown(getattr(settings, each.name)))
        for each in fields(Settings)
    ]
    assert rows == expected


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^\.PHONY: (.*)$", text_of("Makefile"), re.M))
    known = {target for line in targets for target in line.split()}
    named = set()
    for command in re.findall(r"(?:`|\$ |/redis-server )make ([^`\n]*)", all_text()):
        words = re.split("ARGS|#", command)[0].split()
        named |= {word for word in words if "=" not in word}
    assert {"demo", "test", "check"} <= named
    assert named - known == set()


def test_every_command_and_option_of_the_command_line_exists() -> None:
    named = re.findall(r"(?:`|\$ )smsqueue ([a-z][^`#\n]*)", all_text())
    assert {line.split()[0] for line in named} >= {"demo", "dev", "list", "send", "show"}
    for line in named:
        name, *words = line.split()
        assert name in main.commands, line
        command = main.commands[name]
        if isinstance(command, click.Group) and words:
            assert words[0] in command.commands, line
            command = command.commands[words[0]]
        options = {o for each in command.params for o in each.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.M)
            assert anchor in map(anchor_of, headings), target


def test_the_readme_links_to_the_index_of_all_pages() -> None:
    assert "(docs/index.md)" in text_of("README.md")


def test_every_named_file_and_module_exists() -> None:
    text = all_text()
    for name in set(re.findall(r"`((?:smsqueue|workers|receivers|tests|docs)/[\w./]+)`", text)):
        assert (ROOT / name.rstrip("/")).exists(), name


def test_the_design_names_every_key_of_the_ledger() -> None:
    used = set()
    for script in (ROOT / "smsqueue" / "ledger").rglob("*.lua"):
        used |= set(re.findall(r"\bkey\('(\w+)'", script.read_text("utf-8")))
    section = text_of("docs/design.md").partition("## Keys of the ledger")[2].partition("\n## ")[0]
    documented = {name.partition(":")[0] for name in re.findall(r"^\| `([^`]+)`", section, re.M)}
    assert used | {"secret", "warned"} == documented


def test_the_design_names_every_package() -> None:
    packages = text_of("docs/design.md").partition("## Packages")[2].partition("\n## ")[0]
    there = {path.stem for path in (ROOT / "smsqueue").iterdir() if path.stem[0] not in "_."}
    assert {name for name in there if f"`{name}`" not in packages} == {"py"}


def test_every_state_is_explained() -> None:
    design = text_of("docs/design.md")
    assert [state for state in State if not re.search(rf"\b{state}\b", design)] == []


def test_the_simulators_page_lists_its_numbers() -> None:
    rows = re.findall(
        r"^\| `(\+\d+xx)` \| (.*?) \| (\w+) \| (\d+) \|$", text_of("docs/simulator.md"), re.M
    )
    assert rows == [(n.pattern, n.description, str(n.final_state), str(n.calls)) for n in NUMBERS]
