"""MkDocs calls these functions while it builds the site; they write the reference pages from the code.

No generated page is committed, so none can be out of date. A public name, command or error that is new appears by
itself; the functions need no list of them.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import TypeAdapter

import rapidin
from rapidin import errors, records
from rapidin.cli import app

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that lie in ``docs/``."""
    pages = {
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/http.md": http(),
        "reference/json.md": json_records(),
        "reference/errors.md": error_index(),
    }
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def command_line() -> str:
    """A section for each command: its usage, what it does, its arguments and options."""
    parts = [
        "# Command line\n",
        "Results go to stdout; progress and messages go to stderr. Exit codes: 0 done, 1 failed with a one-line "
        "message, 2 wrong usage, 130 interrupted, 143 terminated (SIGTERM). `rapidin --debug COMMAND …` shows a traceback, "
        "`rapidin --version` the version.\n",
    ]
    for name, command in commands():
        parts.append(f"## rapidin {name}\n")
        words = " ".join(_argument(p) for p in command.params if p.param_type_name == "argument")
        parts.append(f"```\nrapidin {name} [OPTIONS] {words}\n```\n".replace(" \n", "\n"))
        parts.append(inspect.cleandoc(command.help or "") + "\n")
        parts.append("| | takes | meaning |\n|---|---|---|")
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                label = f"`{_argument(parameter)}`"
            else:
                label = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
            parts.append(
                f"| {label} | {_cell(_takes(parameter))} | {_cell(getattr(parameter, 'help', '') or '')} |"
            )
        parts.append("")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, those of groups included."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, one in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), one


def _argument(parameter: Any) -> str:
    """How an argument is written in a usage line."""
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _takes(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "(nothing)"
    kind = parameter.type_descriptor.annotation
    if get_origin(kind) is Literal:
        text = " \\| ".join(str(choice) for choice in get_args(kind))
    else:
        text = parameter.metavar or {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
    default = parameter.default
    if isinstance(default, (str, int, float, Path)) and not isinstance(default, bool) and str(default):
        text += f" (default {default})"
    return text


def _cell(text: str) -> str:
    """One line for a table; characters that Markdown or HTML would read stand for themselves."""
    line = " ".join(text.split())
    for character, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("*", "\\*"), ("_", "\\_")):
        line = line.replace(character, safe)
    return re.sub(r"(?<!\\)\|", r"\|", line)


GROUPS = {
    "ingest": "Adding samples",
    "search": "Searching",
    "storage": "Stores",
    "report": "Reports",
    "evaluation": "Evaluations",
    "settings": "Settings and options",
    "records": "Records",
    "errors": None,
}
"""Headings of the Python page, by the package that a name comes from; errors have a page of their own."""


def python() -> str:
    """Every public name of `rapidin`, grouped by the package that offers it; mkdocstrings fills in the rest."""
    stub = ast.parse((ROOT / "rapidin" / "__init__.pyi").read_text(encoding="utf-8"))
    names = {
        node.module or "": [alias.name for alias in node.names]
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
    }
    parts = [
        "# Python\n",
        "`import rapidin` offers every name on this page, and loads what is behind a name when it is first used. The "
        "errors are on [a page of their own](errors.md).\n",
    ]
    for package in [*GROUPS, *(name for name in names if name not in GROUPS)]:
        heading = GROUPS.get(package, package.capitalize())
        if heading is None or package not in names:
            continue
        parts.append(f"## {heading}\n")
        for name in names[package]:
            value = getattr(rapidin, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                parts.append(f"::: rapidin.{package}.{name}\n")
            else:
                parts.append(f"### {name}\n\n```python\n{name} = {str(value).replace('typing.', '')}\n```\n")
    parts.append("## LangChain\n\n::: rapidin.integrations.langchain\n    options: {show_root_heading: false}\n")
    parts.append("## LlamaIndex\n\n::: rapidin.integrations.llamaindex\n    options: {show_root_heading: false}\n")
    return "\n".join(parts)


def http() -> str:
    """The service's routes and the shapes of its answers, from the OpenAPI description that it serves itself."""
    schema = _openapi()
    parts = [
        "# HTTP\n",
        "`rapidin serve STORE` answers these requests, and describes them at `/openapi.json`. "
        "[Run the service](../howto/service.md) tells how to start it.\n",
        schema["info"]["description"] + "\n",
    ]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"## {method.upper()} {path}\n")
            parts.append(f"{route.get('summary', '')}.\n\n{route.get('description', '')}\n")
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body:
                parts.append(f"Body: {_shape(body)}\n")
            parts.append("| status | answer |\n|---|---|")
            for status, answer in route["responses"].items():
                shapes = [_shape(one["schema"]) for one in answer.get("content", {}).values() if one.get("schema")]
                parts.append(f"| {status} | {_cell(answer['description'])} {', '.join(shapes)} |")
            parts.append("")
    parts.append("## Shapes\n")
    for name, shape in sorted(schema["components"]["schemas"].items()):
        parts.append(f"### {name} {{ #shape-{name.lower()} }}\n\n{_description(shape)}\n{_schema_block(shape)}")
    return "\n".join(parts)


def _openapi() -> dict[str, Any]:
    """The description of a service over an empty store, which needs no model."""
    from rapidin.service import Service, ServiceSettings, create_app

    settings = rapidin.StoreSettings(
        model=rapidin.ModelSettings(model="model"),
        traced=(rapidin.TracedParameter(name="weight", shape=(1, 1)),),
        fingerprint=rapidin.Fingerprint(model={"weight": "0"}),
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        rapidin.Store.create(Path(directory) / "store", settings) as store,
    ):
        service = Service(store, lambda: rapidin.Searcher(store.path), ServiceSettings())
        schema: dict[str, Any] = create_app(service).api.openapi()
    return schema


def _shape(schema: dict[str, Any]) -> str:
    """A link to a named shape, or the type's name."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#shape-{name.lower()})"
    return f"`{schema.get('type', 'any')}`"


def json_records() -> str:
    """The JSON schema of every record that `--json`, the service or `to_json` gives."""
    parts = [
        "# JSON\n",
        "`rapidin COMMAND … --json` prints one object on stdout, or one a line for several queries. `rapidin.to_json` "
        "makes the same objects from records. Keys may be added later; none will be taken away.\n",
    ]
    for name in sorted(records.__all__):
        value = getattr(records, name)
        if inspect.isclass(value) and is_dataclass(value):
            schema = TypeAdapter(value).json_schema(mode="serialization")
            text = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
            parts.append(f"## {name}\n\n{text}\n{_schema_block(schema)}")
    return "\n".join(parts)


def _description(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n\n")[0]


def _schema_block(schema: dict[str, Any]) -> str:
    shown = {key: value for key, value in schema.items() if key not in ("title", "description", "$defs")}
    return f"\n```json\n{json.dumps(shown, indent=1, ensure_ascii=False)}\n```\n"


def error_index() -> str:
    """The tree of errors, and a section for each class."""
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\nA message")[0]
    parts = [
        "# Errors\n",
        "Every error that rapidin raises on purpose is a `rapidin.RapidinError`. A message is one line: it names the "
        "file, row or id, says what is wrong and what to do. On the command line a `SettingError` ends with exit code "
        "2, all others with 1.\n",
        f"```\n{tree}\n```\n",
    ]
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, Exception):
            parts.append(
                f"::: rapidin.errors.{name}\n    options: {{heading_level: 2, merge_init_into_class: false}}\n"
            )
    return "\n".join(parts)
