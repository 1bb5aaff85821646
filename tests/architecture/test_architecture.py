"""The import rules of ARCHITECTURE.md, the public surface, and what the documents promise."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import rapidin

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rapidin"


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth, by its full name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> dict[str, set[str]]:
    return {
        str(file.relative_to(PACKAGE).with_suffix("")): set(imports(file))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def importers(prefix: str) -> set[str]:
    return {
        name
        for name, found in modules().items()
        if any(module == prefix or module.startswith(prefix + ".") for module in found)
    }


def test_ingest_and_search_do_not_know_each_other() -> None:
    assert not {name for name in importers("rapidin.ingest") if name.startswith("search")}
    assert not {name for name in importers("rapidin.search") if name.startswith("ingest")}


def test_nothing_imports_the_command_line() -> None:
    assert importers("rapidin.cli") == set()


def test_only_the_command_line_imports_integrations() -> None:
    others = {name for name in importers("rapidin.integrations") if not name.startswith("integrations/")}
    assert others == {"cli_mcp"}
    assert not {name for name in importers("rapidin.ingest") if name.startswith("integrations/")}


def test_storage_stands_alone() -> None:
    allowed = (
        "rapidin.storage",
        "rapidin.errors",
        "rapidin.settings.choices",
        "rapidin.settings.store_settings",
        "rapidin.records.stored",
        "rapidin.records.maintenance_reports",
    )
    for name, found in modules().items():
        if name.startswith("storage"):
            others = {
                module for module in found if module.startswith("rapidin") and not module.startswith(allowed)
            }
            assert not others, name
            packages = {module.split(".")[0] for module in found}
            assert not {"transformers", "peft"} & packages, name
            # torch only multiplies, and only when there is something to multiply.
            assert "torch" not in packages or name in ("storage/sliced", "storage/gpu"), name


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("faiss", ("storage/",)),
        ("sqlalchemy", ("storage/",)),
        ("alembic", ("storage/",)),
        ("peft", ("model/",)),
        # The demo trains a model from scratch.
        ("transformers", ("model/", "demo/training")),
        ("typer", ("cli", "demo/run")),
        ("datasets", ("data/",)),
        ("langchain_core", ("integrations/langchain",)),
        ("llama_index", ("integrations/llamaindex",)),
        ("mcp", ("integrations/mcp",)),
        ("fastapi", ("service/",)),
        ("starlette", ("service/",)),
        ("uvicorn", ("service/",)),
        ("prometheus_client", ("service/",)),
    ],
)
def test_every_library_has_one_home(package: str, homes: tuple[str, ...]) -> None:
    assert importers(package)
    assert {name for name in importers(package) if not name.startswith(homes)} == set()


def test_only_its_command_knows_the_service() -> None:
    assert {name for name in importers("rapidin.service") if not name.startswith("service/")} == {"cli_serve"}


def test_every_public_name_is_there() -> None:
    for name in rapidin.__all__:
        assert getattr(rapidin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rapidin.nonsense


def test_help_imports_nothing_heavy() -> None:
    """What keeps ``rapidin --help`` at a tenth of a second."""
    program = (
        "import sys; sys.argv = ['rapidin', '--help']\n"
        "from rapidin.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'sqlalchemy', 'numpy', 'pydantic', 'datasets', 'fastapi'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "ingest" in output


def test_only_the_command_line_knows_evaluations() -> None:
    found = {name for name in importers("rapidin.evaluation") if not name.startswith("evaluation/")}
    assert found == {name for name in found if name.startswith(("cli_evaluate", "terminal_"))}
    assert "cli_evaluate" in found


@pytest.mark.parametrize("package", ["sklearn", "scipy", "matplotlib", "bm25s", "psutil", "sentence_transformers"])
def test_packages_of_evaluations_are_imported_when_they_are_wanted(package: str) -> None:
    """Through `rapidin.support.optional_packages`, which says how to install them."""
    assert {name for name in importers(package) if name.startswith("evaluation/")} == set()


def commands() -> dict[str, typer.models.CommandInfo]:
    """Every command by what is typed for it, those of groups too."""
    from rapidin.cli import app

    found = {command.name or command.callback.__name__: command for command in app.registered_commands}  # type: ignore[union-attr]
    for group in app.registered_groups:
        if group.typer_instance.info.name:
            for command in group.typer_instance.registered_commands:
                name = command.name or command.callback.__name__  # type: ignore[union-attr]
                found[f"{group.typer_instance.info.name} {name}"] = command
    return found


def parameters() -> dict[str, list[Any]]:
    """The same for what each command takes."""
    from rapidin.cli import app

    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, one in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = one.params
    return found


def test_every_command_teaches_and_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in commands().items():
        assert command.callback is not None
        assert command.callback.__doc__, name
        assert f"rapidin {name}" in readme, name


def test_every_option_has_help() -> None:
    assert "evaluate backdoor" in parameters()
    for name, taken in parameters().items():
        for parameter in taken:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_readme_shows_only_options_that_exist() -> None:
    options = {option for taken in parameters().values() for p in taken for option in p.opts}
    options |= {"--help", "--version", "--debug"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [
        line for block in re.findall(r"```(?:bash|sh)\n(.*?)```", readme, re.S) for line in block.splitlines()
    ]
    # What stands between quotes is another program's.
    lines = [re.sub(r"'[^']*'", "", line) for line in lines if line.startswith("rapidin")]
    used = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    assert used
    assert used <= options


def test_the_errors_are_drawn_as_they_are() -> None:
    """The tree at the top of errors.py names every class of it."""
    from rapidin import errors

    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert classes == set(re.findall(r"(\w+Error)\b", errors.__doc__ or ""))


def test_the_readmes_ten_lines_of_python_work(tmp_path: Path, model_directory: Path) -> None:
    from tests import worlds

    worlds.write_rows(tmp_path / "train.jsonl", worlds.rows(12))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len(program.strip().splitlines()) <= 14
    program = program.replace("my-model", str(model_directory))
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip().splitlines()) >= 5
