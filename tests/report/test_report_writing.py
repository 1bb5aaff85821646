"""Reports on disk."""

from pathlib import Path

import pytest

from rapidin.errors import SettingError
from rapidin.report import render_report, write_report
from tests.report.examples import full_result


def test_the_file_is_the_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, [full_result()], title="Why?", facts={"a": "b"})
    assert path.read_text(encoding="utf-8") == render_report([full_result()], title="Why?", facts={"a": "b"})
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to("report.html")
    write_report(str(tmp_path / "link.html"), [])
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/report.html", "No such file or directory"),
        ("folder", "it is not a file"),
        ("a\0b", "null"),
        ("file/report.html", "Not a directory"),
    ],
)
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=reason) as raised:
        write_report(tmp_path / name, [full_result()])
    assert repr(str(tmp_path / name)) in str(raised.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(SettingError, match="not a file"):
        write_report("/dev/null", [])
    assert Path("/dev/null").is_char_device()


def test_nothing_is_left_of_a_report_that_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(SettingError, match="No space left"):
        write_report(path, [])
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
