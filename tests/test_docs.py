"""Documentation is code under test: its commands parse, its Python compiles, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from blindtune.cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for place in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md", "models/weights/*.md")
    for page in ROOT.glob(place)
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)[^)]*\)")
OPERATORS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "(", ")"}


def blocks(text: str, info: str) -> list[str]:
    """The bodies of fenced blocks that are marked ``info``."""
    return [m["body"] for m in FENCE.finditer(text) if m["info"].strip() == info]


def commands(text: str, program: str) -> list[list[str]]:
    """Arguments of each call of ``program`` in the console blocks.

    Prompts, variables before the call, pipes, comments and continued lines are understood. A block that
    shows prompts shows output too, and output is left alone.
    """
    found = []
    for body in blocks(text, "console"):
        lines = [line.strip() for line in re.sub(r"\\\n", " ", body).splitlines()]
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            for call in _calls(line):
                while call and re.fullmatch(r"[A-Z_]+=.*", call[0]):
                    call.pop(0)
                if call and call[0].rpartition("/")[2] == program:
                    found.append(call[1:])
    return found


def _calls(line: str) -> Iterator[list[str]]:
    """The words of each command in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    call: list[str] = []
    for word in lexer:
        if word in OPERATORS:
            yield call
            call = []
        else:
            call.append(word)
    yield call


def check(arguments: list[str]) -> None:
    """Parse a call of blindtune as the program would, without running it."""
    program: Any = typer.main.get_command(app)
    try:
        with program.make_context("blindtune", list(arguments), resilient_parsing=False) as context:
            name, command, rest = program.resolve_command(
                context, [*getattr(context, "_protected_args", []), *context.args]
            )
            command.make_context(name, rest, parent=context)
    except typer.Exit:
        return  # --help


def texts() -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), page.read_text()) for page in PAGES if page.is_file()]


def calls(program: str) -> list[Any]:
    return [
        pytest.param(call, id=f"{page}: {' '.join(call)}")
        for page, text in texts()
        for call in commands(text, program)
    ]


PYTHON = [
    pytest.param(body, id=f"{page}, block {i}")
    for page, t in texts()
    for i, body in enumerate(blocks(t, "python run"))
]


@pytest.mark.parametrize("arguments", calls("blindtune"))
def test_documented_commands_exist_with_their_options(arguments: list[str]) -> None:
    check(arguments)


@pytest.mark.parametrize("arguments", calls("make"))
def test_documented_make_targets_exist(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {word for word in arguments if "=" not in word} <= targets


@pytest.mark.parametrize("body", PYTHON)
def test_documented_python_compiles_and_imports_what_exists(body: str) -> None:
    compile(body, "documentation", "exec")
    for node in ast.walk(ast.parse(body)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            missing = [n.name for n in node.names if n.name != "*" and not hasattr(module, n.name)]
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize(("page", "text"), texts(), ids=[page for page, _ in texts()])
def test_links_between_files_lead_somewhere(page: str, text: str) -> None:
    broken = [m["path"] for m in LINK.finditer(text) if not (ROOT / page).parent.joinpath(m["path"]).exists()]
    assert not broken


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "README.md"])
def test_the_usual_pages_are_there(page: str) -> None:
    assert (ROOT / page).is_file()


def test_every_command_has_a_line_of_help() -> None:
    program: Any = typer.main.get_command(app)
    assert set(program.commands) >= {"keygen", "plan", "encrypt", "serve", "decrypt", "evaluate", "demo"}
    for name, command in program.commands.items():
        assert command.help, name
        silent = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", "")]
        assert not silent, f"{name}: {silent}"


SAMPLE = """
```console
$ BLINDTUNE_TOKEN=x blindtune submit STUDY --server https://cloud.example  # with a comment
$ .venv/bin/blindtune encrypt SCANS --labels L.csv \\
    --out STUDY/ && blindtune status STUDY --json | head
output of blindtune, not a call
```
  ```python run
  x = 1
  ```
"""


def test_commands_are_found_in_a_page() -> None:
    assert commands(SAMPLE, "blindtune") == [
        ["submit", "STUDY", "--server", "https://cloud.example"],
        ["encrypt", "SCANS", "--labels", "L.csv", "--out", "STUDY/"],
        ["status", "STUDY", "--json"],
    ]
    assert blocks(SAMPLE, "python run") == ["  x = 1\n"]


@pytest.mark.parametrize("call", ["encrpt SCANS", "encrypt SCANS --out S --label L.csv", "encrypt --out S"])
def test_a_wrong_command_is_noticed(call: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        check(call.split())
