"""What the documents say, held against the code.

A block of YAML says what it is: `yaml config`, `yaml policy` (with `upstreams=a,b` where they are not called `app`),
or `yaml kubernetes` and `yaml proxy` for what only has to be YAML. Whatever is called config or policy is read by the
code that reads config and policy, examples included.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import yaml

from gateway import settings
from gateway.audit.access_log import AccessLog
from gateway.audit.metrics import COUNTERS, HISTOGRAMS, PREFIX, READ
from gateway.cli import COMMANDS, Parser
from gateway.commands import conversations, reference
from gateway.core.events import Kind
from gateway.core.reasons import Reason
from gateway.mfa import recovery_states, stepup
from gateway.policy.load import load
from gateway.settings import Mfa
from gateway.web.api.openapi import ENDPOINTS
from gateway.web.routes import PAGES
from gateway.wire.answers import code_of
from gateway.wire.identity_headers import STYLES, IdentityHeaders
from gateway.wire.target import readings

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
KINDS = {"config", "policy", "kubernetes", "proxy"}
ALLOWED = {Reason.PUBLIC, Reason.GRANTED}
LATER = re.compile(r"\bTODO\b|\bFIXME\b|\bTBD\b")


class Block(NamedTuple):
    """A fenced block."""

    file: Path
    line: int
    words: list[str]
    """Language and what follows it."""
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def blocks_of(file: Path) -> Iterator[Block]:
    opened: tuple[int, list[str]] | None = None
    lines: list[str] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line.lstrip().removeprefix("```").split()), []
        else:
            yield Block(file, *opened, "\n".join(lines) + "\n")
            opened = None
    assert opened is None, f"{file}:{opened}: a block is not closed"


BLOCKS = [block for file in DOCS for block in blocks_of(file)]
YAML = [block for block in BLOCKS if block.words[:1] == ["yaml"]]


def prose_of(file: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^[ ]*```.*?^[ ]*```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def in_first_column(text: str) -> set[str]:
    """Every `code` in the first cell of a table's rows."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {word for cell in rows for word in re.findall(r"`([^`]+)`", cell)}


def section(text: str, heading: str) -> str:
    """What stands under `heading`, up to the next one of its rank or above."""
    rank = heading.partition(" ")[0]
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    end = re.compile(rf"^#{{1,{len(rank)}}} ", re.MULTILINE).search(text, start)
    return text[start : end.start() if end else len(text)]


def anchors_of(file: Path) -> set[str]:
    headings = re.findall(r"^#{1,6} (.+)$", prose_of(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(file: Path) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose_of(file)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nothing_is_left_to_be_written(file: Path) -> None:
    assert LATER.findall(file.read_text()) == []


def test_every_document_can_be_found_from_the_first_page() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        file = waiting.pop()
        if file in reached or file.suffix != ".md" or not file.exists():
            continue
        reached.add(file)
        links = re.findall(r"\[[^\]]*\]\(([^)\s#]+)", prose_of(file))
        waiting += [(file.parent / link).resolve() for link in links if ":" not in link]
    assert [file for file in DOCS if file not in reached] == []


# -- YAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", YAML, ids=str)
def test_every_yaml_block_says_what_it_is(block: Block) -> None:
    assert len(block.words) > 1, "write ```yaml config, policy or kubernetes"
    assert block.words[1] in KINDS
    assert list(yaml.safe_load_all(re.sub(r"!file\b", "", block.text)))


@pytest.mark.parametrize("block", [one for one in YAML if one.words[1] == "config"], ids=str)
def test_every_config_is_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block.text)
    for name in re.findall(r"!file (\S+?)[},\s]", block.text):
        (tmp_path / name).write_text("http://127.0.0.1:9000\n")
    read = settings.load(file, {})
    assert read.upstreams


@pytest.mark.parametrize("block", [one for one in YAML if one.words[1] == "policy"], ids=str)
def test_every_policy_is_taken(block: Block, tmp_path: Path) -> None:
    named = next((word.removeprefix("upstreams=") for word in block.words if word.startswith("upstreams=")), "app")
    file = tmp_path / "policy.yaml"
    file.write_text(block.text)
    book = load(
        file,
        upstreams=named.split(","),
        factors=("webauthn", *Mfa().factors, "sms", "email"),
        admin_groups=("admins",),
        trusted=30 * 86400.0,
        environ={},
        readings=readings,
    )
    assert book.entries
    assert book.warnings == ()


def test_there_are_enough_of_them_to_be_worth_a_test() -> None:
    kinds = [block.words[1] for block in YAML]
    assert kinds.count("policy") >= 8
    assert kinds.count("config") >= 4


# -- the command line ------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="sallyport")
    made.add_argument("--version", action="store_true")
    subparsers = made.add_subparsers(dest="command", required=False, parser_class=Parser)
    for name in COMMANDS:
        importlib.import_module(f"gateway.commands.{name}").add(subparsers)
    return made


SHELL = re.compile(r"(?:^|[|;&(]\s*|-- |bin/|-m gateway|\$ )sallyport((?: (?:\"[^\"]*\"|[^|;&#>)\"])*)?)")
IN_SHELL = [
    (str(block), match[1].strip())
    for block in BLOCKS
    if block.words[:1] == ["sh"]
    for line in block.text.replace("\\\n", " ").splitlines()
    for match in SHELL.finditer(line)
]
IN_PROSE = [
    (file.relative_to(ROOT).as_posix(), match[1])
    for file in DOCS
    for match in re.finditer(r"`sallyport ([^`…]+)`", prose_of(file))
]


@pytest.mark.parametrize(("where", "arguments"), IN_SHELL)
def test_every_command_shown_can_be_given(where: str, arguments: str) -> None:
    code = 0
    try:
        parser().parse_args(shlex.split(arguments))
    except SystemExit as ended:  # --version and --help end well
        code = int(ended.code or 0)
    assert code == 0, f"{where}: sallyport {arguments}"


@pytest.mark.parametrize(("where", "arguments"), IN_PROSE)
def test_every_command_named_exists_with_its_flags(where: str, arguments: str) -> None:
    words = shlex.split(arguments)
    at = parser()
    while deeper := [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]:
        if not words or words[0].startswith("-"):
            break
        name = words.pop(0)
        assert name in deeper[0].choices, f"{where}: sallyport {arguments}"
        at = deeper[0].choices[name]
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= set(at._option_string_actions), f"{where}: sallyport {arguments}"


def test_every_command_is_written_about() -> None:
    told = {arguments.partition(" ")[0] for _, arguments in IN_SHELL}
    assert set(COMMANDS) <= told


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [block.text for block in BLOCKS if block.words[:1] == ["sh"]]
    named = {name for text in shown for name in re.findall(r"^make ([a-z]+)", text, re.MULTILINE)}
    named |= {name for file in DOCS for name in re.findall(r"`make ([a-z]+)", prose_of(file))}
    assert named <= targets


# -- words -----------------------------------------------------------------------------------------------------------


def codes_in_the_code() -> set[str]:
    literal = re.compile(r'"(ERR-[A-Z]+(?:-[A-Z]+)*)"')
    written = {code for file in (ROOT / "gateway").rglob("*.py") for code in literal.findall(file.read_text())}
    return written | {code_of(reason) for reason in Reason if reason not in ALLOWED}


def test_every_error_code_is_listed_and_every_listed_one_exists() -> None:
    assert in_first_column(section(text_of("api.md"), "## Error codes")) == codes_in_the_code()


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_document_names_a_code_that_does_not_exist(file: Path) -> None:
    assert set(re.findall(r"ERR-[A-Z]+(?:-[A-Z]+)*", file.read_text())) <= codes_in_the_code()


def metric_names() -> set[str]:
    names = {f"{PREFIX}{name}_total" for name in COUNTERS} | {PREFIX + name for name in HISTOGRAMS}
    for name, (kind, _, _) in READ.items():
        names.add(f"{PREFIX}{name}_total" if kind == "counter" else PREFIX + name)
    return names | {PREFIX + "build_info"}


def test_every_metric_is_described_and_every_described_one_exists() -> None:
    told = in_first_column(section(text_of("operations.md"), "## Metrics"))
    assert {name for name in told if name.startswith(PREFIX)} == metric_names()


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_document_names_a_metric_that_does_not_exist(file: Path) -> None:
    for name in re.findall(r"\bsallyport_[a-z_]+[a-z]", file.read_text()):
        assert name in metric_names() | {f"{one}_bucket" for one in metric_names()}, name


def test_every_file_of_the_data_path_has_its_place_in_the_picture() -> None:
    told = section(text_of("architecture.md"), "## The data path")
    files = {file.stem for file in (ROOT / "gateway" / "wire").glob("*.py")} - {"__init__"}
    assert {name for name in files if not re.search(rf"\b{name}\b", told)} == set()


def test_every_reason_is_described() -> None:
    told = in_first_column(section(text_of("operations.md"), "### Reasons"))
    assert told == {reason.value for reason in Reason}


def test_every_kind_of_event_is_described() -> None:
    told = in_first_column(section(text_of("operations.md"), "## Security events"))
    assert {kind.value for kind in Kind} <= told


def test_every_field_of_the_access_log_is_described(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    log = AccessLog(str(file))
    log.write(0.0, "GET", "h", "/", 200, "192.0.2.1", "agent", "id", 0, 0, 0.0)
    log.close()
    fields = set(orjson.loads(file.read_bytes()))
    assert in_first_column(section(text_of("operations.md"), "## Access log")) >= fields


def test_every_page_and_every_path_of_the_api_is_listed() -> None:
    told = in_first_column(text_of("api.md"))
    assert {f"{one.method} {one.path}" for one in ENDPOINTS} <= told
    assert {f"{method} {path}" for method, path, _ in PAGES} <= told


def test_every_header_and_every_claim_towards_a_service_is_listed() -> None:
    told = set(re.findall(r"`([^`\n]+)`", prose_of(ROOT / "docs" / "services.md")))
    assert {name.decode() for style in STYLES.values() for name in style} <= told
    claims = re.findall(
        r'^            "([a-z_]+)":', Path(IdentityHeaders.claims.__code__.co_filename).read_text(), re.M
    )
    assert len(claims) >= 14
    assert set(claims) <= told


@pytest.mark.parametrize("kind", ["config", "policy"])
def test_the_references_are_those_of_the_code(kind: str) -> None:
    """`make docs` writes them."""
    assert text_of(f"reference/{kind}.md").strip() == reference.markdown_of(kind).strip()


def test_the_diagrams_are_those_of_the_tables() -> None:
    """`make docs` draws them."""
    assert text_of("reference/conversations.md") == conversations.markdown()


def test_every_arrow_of_a_table_is_in_its_diagram() -> None:
    text = text_of("reference/conversations.md")
    for (state, outcome), (after, code) in stepup.NEXT.items():
        happens = outcome.value.replace("_", " ")
        arrow = rf"^    {state.value} --> {after.value}: (.*, )?{happens}(,.*)? → {code or 'a proof'}$"
        assert re.search(arrow, text, re.MULTILINE), (state, outcome)
    for (before, event), then in recovery_states.NEXT.items():
        arrow = rf"^    {before.value} --> {then.value}: (.*, )?{event.value}(,.*)?$"
        assert re.search(arrow, text, re.MULTILINE), (before, event)
    arrows = re.findall(r"^    \w+ --> \w+: (.*?)(?: → .*)?$", text, re.MULTILINE)
    assert sum(len(each.split(", ")) for each in arrows) == len(stepup.NEXT) + len(recovery_states.NEXT)


# -- manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_lines_can_be_read_in_a_terminal(file: Path) -> None:
    long = [
        number
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 130 and not line.startswith("|") and "reference/" not in file.as_posix()
    ]
    assert long == []
