"""What README and the documentation promise: commands, options, code, names and links."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from rapidin import cli
from tests import worlds

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS]
OTHERS = {"--help", "--version", "--debug", "--no-deps", "--resolution", "--strict"}
"""Options of `rapidin` itself and of other programs that the documents show."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of code in one of the languages, without the indentation of a list."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", text_of(page), re.S | re.M)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, language, block in found if language in languages]


def parameters() -> dict[str, list[Any]]:
    """What each command takes, by what is typed for it."""
    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        for inner, one in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = one.params
    return found


def options() -> set[str]:
    return {option for taken in parameters().values() for parameter in taken for option in parameter.opts}


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """The module that makes the reference pages."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_stands_in_a_page_that_people_wrote() -> None:
    pages = "\n".join(text_of(page) for page in (README, *DOCS))
    assert {name for name in parameters() if f"rapidin {name}" not in pages} == set()


def test_the_reference_has_every_command_and_option(hooks: ModuleType) -> None:
    page = hooks.command_line()
    for name, taken in parameters().items():
        section = re.search(rf"^## rapidin {name}$(.*?)(?=^## |\Z)", page, re.S | re.M)
        assert section, name
        for parameter in taken:
            for option in parameter.opts:
                assert f"`{option}`" in section[1] or not option.startswith("-"), f"{name} {option}"


def test_every_option_has_help() -> None:
    assert "evaluate backdoor" in parameters()
    for name, taken in parameters().items():
        for parameter in taken:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_only_options_that_exist(page: Path) -> None:
    lines = [
        re.sub(r"'[^']*'", "", line)  # what stands between quotes is another program's
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("rapidin")
    ]
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text_of(page))
    used = {option for line in (*lines, *inline) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)}
    assert used <= options() | OTHERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_only_commands_that_exist(page: Path) -> None:
    first = {name.split()[0] for name in parameters()}
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            if found := re.match(r"\s*rapidin (\w+)", line):
                assert found[1] in first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documents_can_be_read(page: Path) -> None:
    """Names of rapidin in it are public; README's and the tutorial's are also run, below."""
    import rapidin

    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rapidin":
                assert node.attr in rapidin.__all__


@pytest.mark.parametrize("page", [README, ROOT / "docs/tutorial/your-own-model.md"], ids=lambda page: page.name)
def test_the_ten_lines_of_python_work(page: Path, tmp_path: Path, model_directory: Path) -> None:
    worlds.write_rows(tmp_path / "train.jsonl", worlds.rows(12))
    (program,) = blocks(page, "python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    program = program.replace("my-model", str(model_directory))
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip().splitlines()) >= 5


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"[a-z]+:|#", target):
            yield target.partition("#")[0]


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *DOCS], ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    """Generated pages exist in the built site only; MkDocs checks links to them, and anchors."""
    generated = re.findall(r'"(reference/[a-z-]+\.md)":', text_of(ROOT / "docs" / "hooks.py"))
    assert generated
    for target in links(page):
        place = (page.parent / target).resolve()
        assert place.exists() or place in {ROOT / "docs" / one for one in generated}, target


def test_every_page_is_in_the_navigation() -> None:
    navigation = text_of(ROOT / "mkdocs.yml").partition("\nnav:")[2]
    assert {page for page in DOCS if str(page.relative_to(ROOT / "docs")) not in navigation} == set()


def test_the_reference_names_every_public_name(hooks: ModuleType) -> None:
    import rapidin

    page = hooks.python() + hooks.error_index()
    for name in set(rapidin.__all__) - {"__version__"}:
        assert re.search(rf"::: rapidin\.\w+\.{name}$|^### {name}$", page, re.M), name


def test_the_reference_shows_the_service_and_the_records(hooks: ModuleType) -> None:
    assert "## POST /v1/search" in hooks.http()
    records = hooks.json_records()
    assert "## SearchResult" in records
    assert '"proponents"' in records


def test_the_architecture_has_the_tree_of_packages() -> None:
    packages = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "rapidin").rglob("__init__.py")}
    assert set(re.findall(r"^\| `(rapidin[\w/]*)` \|", text_of(ROOT / "ARCHITECTURE.md"), re.M)) == packages


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`((?:rapidin|tests|docs|examples|benchmarks)/[\w/.]+)`", text_of(ROOT / page)))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("way", ["The way of `projection_dim`", "The way of a prompt"])
def test_a_way_through_the_code_has_a_dozen_stops_at_most(way: str) -> None:
    section = text_of(ROOT / "ARCHITECTURE.md").partition(f"## {way}")[2].partition("\n## ")[0]
    assert 5 <= len(re.findall(r"^\d+\. `rapidin/", section, re.M)) <= 12


def test_every_word_of_the_glossary_is_used() -> None:
    """A word that neither code nor documents use has no place there."""
    glossary = text_of(ROOT / "CONTRIBUTING.md").partition("## Glossary")[2].partition("\n## ")[0]
    words = [word for row in re.findall(r"^\| ([^|]+) \|", glossary, re.M) for word in row.split(", ")]
    assert len(words) > 40
    files = [*(ROOT / "rapidin").rglob("*.py"), *DOCS, README]
    everything = "\n".join(file.read_text(encoding="utf-8") for file in files).lower().replace("_", " ")
    assert {word for word in words if word not in ("word", "---") and word.lower() not in everything} == set()
