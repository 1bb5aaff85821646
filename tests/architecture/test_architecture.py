"""The import rules of ARCHITECTURE.md, the public surface, and what the documents promise."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import rapidin
from rapidin import cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rapidin"


def imports(file: Path) -> Iterator[tuple[str, str | None]]:
    """What a file imports, at any depth: modules (with None), and names with the module they are taken from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and file.name != "__init__.pyi":
            assert node.level == 0, f"{file}: imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = {".".join(file.relative_to(ROOT).with_suffix("").parts): set(imports(file)) for file in FILES}
"""Module → what it imports."""


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__init__.py").exists()


def is_module(module: str) -> bool:
    return is_package(module) or (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


HEAVY = {"torch", "transformers", "faiss", "sqlalchemy", "numpy", "pydantic", "pyarrow", "fastapi"}
"""Packages that neither ``import rapidin`` nor ``rapidin --help`` may load."""


def importers(prefix: str, imports: Mapping[str, set[tuple[str, str | None]]] = IMPORTS) -> set[str]:
    """Find the modules that import `prefix` or a module below it, also as ``from rapidin.x import y``."""

    def meant(module: str, name: str | None) -> bool:
        full = f"{module}.{name}" if name else module
        return any(found == prefix or found.startswith(f"{prefix}.") for found in (module, full))

    return {name for name, found in imports.items() if any(meant(*one) for one in found)}


def outside(found: set[str], *packages: str) -> set[str]:
    """Those of the modules that are not in one of the packages."""
    return {
        name for name in found if not any(f"{name}.".startswith(f"rapidin.{package}.") for package in packages)
    }


OPEN = {"rapidin", "rapidin.integrations", "rapidin.commands"}
"""Packages without a door: their modules are imported one by one. Integrations need an extra each."""


def border(importer: str, module: str) -> str | None:
    """The door through which `importer` has to import from `module`; None where there is none between them."""
    parts = module.split(".")
    for end in range(2, len(parts) + 1):
        package = ".".join(parts[:end])
        if is_package(package) and not importer.startswith(f"{package}."):
            return None if any(f"{package}.".startswith(f"{one}.") for one in OPEN - {"rapidin"}) else package
    return None


@pytest.mark.parametrize("importer", sorted(IMPORTS))
def test_packages_are_entered_through_their_doors(importer: str) -> None:
    """What a package does not name in its `__init__.pyi` is private to it."""
    if is_package(importer):
        return
    for module, name in IMPORTS[importer]:
        if not module.startswith("rapidin.") or not is_module(module):
            continue
        door = border(importer, module)
        assert door in (None, module), f"{importer} imports {name} from {module}, not from {door}"
        if door is not None:
            stub = (ROOT / door.replace(".", "/") / "__init__.pyi").read_text(encoding="utf-8")
            assert f"{name} as {name}" in stub, f"{importer} imports {name}, which {door} does not name"


def test_no_file_name_stands_twice() -> None:
    names = [file.name for file in FILES if file.name != "__init__.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_folder_is_a_drawer() -> None:
    """About a dozen files, so that one sees at a glance what is there."""
    folders = {file.parent for file in FILES}
    counts = {
        folder: len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) for folder in folders
    }
    assert {str(folder): count for folder, count in counts.items() if count > 13} == {}


LAYERS = [
    {"errors", "settings", "records", "support"},
    {"data", "text"},
    {"attribution", "storage"},
    {"model"},
    {"ingest", "search", "report"},
    {"evaluation", "integrations", "service", "demo"},
    {"commands"},
    {"cli"},
]
"""Packages import from their own layer and from those above it in this list, never from those below."""


def layer(module: str) -> int:
    name = module.split(".")[1]
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_imports_go_one_way() -> None:
    for importer, found in IMPORTS.items():
        if importer.count(".") == 0 or importer in ("rapidin.__init__", "rapidin.__main__"):
            continue
        for module, name in found:
            full = module if module.count(".") else f"{module}.{name}"
            if full.startswith("rapidin.") and is_module(".".join(full.split(".")[:2])):
                assert layer(full) <= layer(importer), f"{importer} imports {full}"


def test_packages_of_one_layer_do_not_go_in_circles() -> None:
    """Of two packages at most one knows the other."""
    knows = {
        (importer.split(".")[1], module.split(".")[1])
        for importer, found in IMPORTS.items()
        for module, _ in found
        if importer.count(".") > 1 and module.startswith("rapidin.")
    }
    assert {(one, other) for one, other in knows if one < other and (other, one) in knows} == set()


def test_ingest_and_search_do_not_know_each_other() -> None:
    assert not outside(importers("rapidin.ingest"), "ingest", "demo", "commands") - {"rapidin.__init__"}
    assert not {name for name in importers("rapidin.search") if name.startswith("rapidin.ingest")}


def test_nothing_imports_the_command_line() -> None:
    assert importers("rapidin.cli") <= {"rapidin.__main__"}
    assert outside(importers("rapidin.commands"), "commands", "cli") == set()


@pytest.mark.parametrize(
    "statement",
    ["from rapidin import cli", "import rapidin.cli", "def later():\n    from rapidin.cli import main"],
)
def test_an_import_of_the_command_line_is_found_wherever_it_stands(tmp_path: Path, statement: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(statement, encoding="utf-8")
    assert importers("rapidin.cli", {"module": set(imports(file))}) == {"module"}
    file.write_text("from rapidin import client\nimport rapidin.clients", encoding="utf-8")
    assert importers("rapidin.cli", {"module": set(imports(file))}) == set()


def test_the_tests_of_a_package_lie_in_a_directory_of_its_name() -> None:
    tests = ROOT / "tests"
    across = {"architecture", "bad_input", "benchmarks", "torture"}
    for directory in sorted(path for path in tests.rglob("*") if path.is_dir() and path.name != "__pycache__"):
        place = directory.relative_to(tests)
        if place.parts[0] not in across and any(directory.glob("*.py")):
            assert (PACKAGE / place / "__init__.py").exists(), f"{directory}: rapidin has no package {place}"
            assert any(file.name != "__init__.py" for file in directory.rglob("*.py")), f"{directory} is empty"


def test_only_its_command_imports_an_integration() -> None:
    assert outside(importers("rapidin.integrations"), "integrations") == {"rapidin.commands.mcp"}
    assert outside(importers("rapidin.service"), "service") == {"rapidin.commands.serve"}


def test_only_the_command_line_knows_evaluations() -> None:
    assert outside(importers("rapidin.evaluation"), "evaluation", "commands") <= {"rapidin.__init__"}


def test_storage_knows_neither_models_nor_texts() -> None:
    known = {"storage", "errors", "settings", "records", "support"}
    for name, found in IMPORTS.items():
        if name.startswith("rapidin.storage"):
            used = {module.split(".")[1] for module, _ in found if module.startswith("rapidin.")}
            assert used <= known, name
            packages = {module.split(".")[0] for module, _ in found}
            # torch only multiplies, and only when there is something to multiply.
            slices = "rapidin.storage.vectors.codecs.decoded_slices"
            multiplies = name == slices or name.startswith("rapidin.storage.scan.")
            assert "torch" not in packages or multiplies, name


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("faiss", ("storage",)),
        ("sqlalchemy", ("storage",)),
        ("alembic", ("storage",)),
        ("peft", ("model",)),
        ("kronfluence", ("evaluation.methods.kronfluence_analysis",)),
        # The demo trains a model from scratch.
        ("transformers", ("model", "demo.demo_model")),
        ("typer", ("cli", "commands")),
        ("langchain_core", ("integrations.langchain",)),
        ("llama_index", ("integrations.llamaindex",)),
        ("mcp", ("integrations.mcp_server",)),
        ("fastapi", ("service",)),
        ("starlette", ("service",)),
        ("uvicorn", ("service",)),
        ("prometheus_client", ("service",)),
    ],
)
def test_every_library_has_one_home(package: str, homes: tuple[str, ...]) -> None:
    assert importers(package)
    assert outside(importers(package), *homes) == set()


@pytest.mark.parametrize("package", ["sklearn", "scipy", "matplotlib", "bm25s", "psutil", "sentence_transformers"])
def test_packages_of_extras_are_imported_when_they_are_wanted(package: str) -> None:
    """Through `rapidin.support.package`, which says how to install them."""
    assert importers(package) == set()


def test_every_public_name_is_there() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    listed = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(rapidin.__all__) == {*listed, "__version__"}
    assert set(dir(rapidin)) >= listed
    for name in rapidin.__all__:
        assert getattr(rapidin, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rapidin.nonsense


def test_every_error_and_every_record_is_public() -> None:
    from rapidin import errors, records

    assert error_classes(errors) <= set(rapidin.__all__)
    # A progress callback is a type for type checkers only.
    assert set(records.__all__) - {"Progress"} <= set(rapidin.__all__)


def test_the_version_is_written_once() -> None:
    """pyproject.toml reads it from the package, and the command line prints it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "rapidin.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", rapidin.__version__)
    printed = CliRunner().invoke(cli.app, ["--version"]).stdout
    assert printed.strip() == rapidin.__version__


def test_every_file_of_the_package_is_shipped() -> None:
    """Files other than Python modules reach a wheel only through the patterns in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]
    shipped = {file for pattern in patterns["*"] for file in PACKAGE.rglob(pattern)}
    for package, inside in patterns.items():
        if package != "*":
            shipped |= {file for pattern in inside for file in (ROOT / package.replace(".", "/")).glob(pattern)}
    files = {file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert files <= shipped


def test_importing_rapidin_imports_nothing_heavy() -> None:
    """The names are listed, and nothing behind them is loaded, until one is used."""
    program = (
        "import sys, rapidin\n"
        "assert 'Searcher' in dir(rapidin)\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_imports_nothing_heavy() -> None:
    """What keeps ``rapidin --help`` at a tenth of a second."""
    program = (
        "import sys; sys.argv = ['rapidin', '--help']\n"
        "from rapidin.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "ingest" in output


def error_classes(module: ModuleType) -> set[str]:
    """Names of the exception classes of a module."""
    return {
        name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, Exception)
    }


def test_the_errors_are_drawn_as_they_are() -> None:
    """The tree at the top of errors.py names every class of it."""
    from rapidin import errors

    assert error_classes(errors) == set(re.findall(r"(\w+Error)\b", errors.__doc__ or ""))
