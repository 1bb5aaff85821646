"""Every setting of a store is declared once, at its field, and shows everywhere."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from rich.console import Console

from rapidin.commands.views.store_view import info_table
from rapidin.errors import SettingError
from rapidin.ingest.resolving import resolve
from rapidin.settings import (
    STORE_SETTINGS,
    GradientSettings,
    ModelSettings,
    ProjectionSettings,
    RequestedSettings,
    StatedSettings,
    StoreSettings,
    Template,
    TextSettings,
    section_of,
    stated,
)
from rapidin.storage import Store
from tests.bad_input.command_line import CommandLine
from tests.storage.stores import store_settings


@pytest.fixture
def rapidin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def settings() -> StoreSettings:
    return store_settings(64).model_copy(
        update={
            "text": TextSettings(template=Template(prompt="{q}", response="{a}"), max_length=7, targets="all"),
            "gradient": GradientSettings(objective="log-odds", normalise_layers=False),
        }
    )


def test_the_table_is_what_may_be_requested_and_what_is_stated() -> None:
    assert set(STORE_SETTINGS) == set(typing.get_type_hints(RequestedSettings))
    assert set(STORE_SETTINGS) == {field.name for field in dataclasses.fields(StatedSettings)}


def test_requested_and_stated_values_have_the_types_of_the_fields() -> None:
    requested, has = typing.get_type_hints(RequestedSettings), typing.get_type_hints(StatedSettings)
    for key, setting in STORE_SETTINGS.items():
        part = StoreSettings.model_fields[setting.part].annotation
        assert part is not None
        field = part.model_fields[setting.field].annotation
        # A template is requested as a file and stated as a dictionary; the length carries its bounds within.
        if key in ("template", "max_length"):
            continue
        assert has[key] == field, key
        if key != "checkpoints":  # any sequence of paths
            assert requested[key] == field | None, key


def test_every_setting_is_an_option_of_ingest_with_help(rapidin: CommandLine) -> None:
    shown = rapidin("ingest", "--help").stdout
    for key, setting in STORE_SETTINGS.items():
        assert setting.flag.name in shown, key
        assert setting.flag.help.endswith("."), key


def test_every_setting_is_in_info(
    rapidin: CommandLine, tmp_path: Path, settings: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store"
    Store.create(path, settings).close()
    printed = rapidin("info", path, "--json").json
    assert {key: printed[key] for key in STORE_SETTINGS} == json.loads(json.dumps(stated(settings)))
    with Store.open(path) as store:
        Console(width=200).print(info_table(store.info()))
    labels = [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    for key in STORE_SETTINGS:
        assert key.replace("_", " ") in labels


def test_what_a_store_states_is_as_its_parts_have_it(settings: StoreSettings) -> None:
    values = stated(settings)
    assert values["template"]["prompt"] == "{q}"
    assert (values["max_length"], values["targets"]) == (7, "all")
    assert (values["objective"], values["normalise_layers"]) == ("log-odds", False)
    assert (values["projection"], values["projection_dim"]) == ("shuffled", 64)


def test_a_request_without_settings_fits_every_store(settings: StoreSettings, tmp_path: Path) -> None:
    resolved = resolve({}, settings, tmp_path)
    for part in {setting.part for setting in STORE_SETTINGS.values()}:
        assert getattr(resolved, part) == getattr(settings, part)


def test_the_files_of_a_store_without_checkpoints_say_nothing_of_them(settings: StoreSettings) -> None:
    written = json.loads(settings.model_dump_json())
    assert set(written["model"]) == {"model", "adapter", "dtype", "quantization", "parameters"}
    assert set(written["fingerprint"]) == {"model", "adapter"}
    model = settings.model.model_copy(update={"checkpoints": ("/a", "/b"), "learning_rates": (1.0, 3.0)})
    there = settings.model_copy(update={"model": model})
    again = StoreSettings.model_validate_json(there.model_dump_json())
    assert again == there
    assert (again.model.states, again.model.shares) == (2, (0.25, 0.75))


def test_a_question_that_names_no_objective_has_the_stores_own_or_the_first() -> None:
    assert GradientSettings(objective="log-odds").default_objective == "log-odds"
    assert GradientSettings(objective="both").default_objective == "loss"


def test_checkpoints_and_objectives_share_k_equally() -> None:
    projection = ProjectionSettings(dimension=1024)
    one, both = GradientSettings(objective="log-odds"), GradientSettings()

    def at(checkpoints: int) -> ModelSettings:
        return ModelSettings(model="m", checkpoints=tuple(f"/{number}" for number in range(checkpoints)))

    assert section_of(projection, at(0), one) is projection
    assert section_of(projection, at(4), one).dimension == 256
    assert section_of(projection, at(4), both).dimension == 128
    assert "sections" not in projection.model_dump()
    with pytest.raises(SettingError, match="3 checkpoints cannot share --projection-dim 1024 equally"):
        section_of(projection, at(3), both)
    with pytest.raises(
        SettingError, match=r"--projection-dim 1024 is too small for 64 checkpoints: give at least 2048$"
    ):
        section_of(projection, at(64), one)
    with pytest.raises(SettingError, match="for 32 checkpoints with two objectives: give at least 2048, or"):
        section_of(projection, at(32), both)


def test_new_stores_have_the_defaults_of_the_fields(tmp_path: Path) -> None:
    resolved = resolve({"model": "some/model"}, None, tmp_path)
    assert (resolved.codec.bits, resolved.projection.dimension, resolved.gradient.objective) == (4, 65536, "both")
    assert not resolved.kind_given
    assert not resolved.dimension_given
