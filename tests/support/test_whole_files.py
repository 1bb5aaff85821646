"""A file is replaced as a whole or stays as it was."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from rapidin.support import write_content, write_whole


@pytest.mark.parametrize(
    "content",
    ["grün\n", "grün\n".encode(), lambda file: file.write("grün\n".encode())],
    ids=["text", "bytes", "call"],
)
@pytest.mark.parametrize("durable", [True, False])
def test_every_kind_of_content_replaces_the_file(tmp_path: Path, content: object, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text that was there before")
    write_whole(path, content, durable=durable)  # type: ignore[arg-type]
    assert path.read_bytes() == "grün\n".encode()
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def look(file: BinaryIO) -> None:
        file.write(b"new")
        assert path.read_text() == "old"

    write_whole(path, look)
    assert path.read_text() == "new"


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "text"


def test_a_directory_or_device_is_not_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="it is not a file"):
            write_whole(path, "text")


def test_a_pipe_in_the_place_of_a_temporary_file_is_an_error_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        write_content(tmp_path / "pipe", "content")
