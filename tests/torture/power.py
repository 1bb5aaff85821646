"""Power failures: all file operations of a run are logged, and the disk is made as it may be after any of them.

Only what was synced is certain. Each write since the last sync of its file is kept, lost or torn at random, and so
is the end of the list of names that were made, changed or removed in a directory since its last sync.
"""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from rapidin.storage import Store
from tests.torture.faults import LOG, armed, in_child, wrong
from tests.torture.oracle import Script, new_store, script

SECTOR = 512


@dataclass
class File:
    """A file: bytes that are certainly on disk, and changes that may be."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def settled(self) -> None:
        for change in self.pending:
            apply(self.content, change)
        self.pending = []

    def after_failure(self, chosen: random.Random) -> bytes:
        content = bytearray(self.content)
        for kind, offset, data in self.pending:
            fate = chosen.choice(("kept", "lost", "torn"))
            if fate == "torn" and kind == "write":
                for start in range(0, len(data), SECTOR):
                    if chosen.random() < 0.5:
                        apply(content, (kind, offset + start, data[start : start + SECTOR]))
            elif fate != "lost":
                apply(content, (kind, offset, data))
        return bytes(content)


def apply(content: bytearray, change: tuple[str, int, bytes]) -> None:
    kind, offset, data = change
    if kind == "cut":
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Disk:
    """A disk that may lose power: files by path, as programs see them and as they are for certain."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.seen: dict[str, File | None] = {}  # None is a directory
        self.certain: dict[str, File | None] = {}
        self.names: dict[str, list[tuple[str, str, File | None]]] = {}

    def operate(self, op: str, path: str, other: str, offset: int, data: bytes) -> None:
        match op:
            case "create":
                self._name("set", path, File())
            case "mkdir":
                self._name("set", path, None)
            case "unlink":
                self._name("remove", path, None)
            case "rename":
                self._name("set", other, self.seen.get(path))
                self._name("remove", path, None)
            case "write" | "cut" | "empty":
                file = self.seen.get(path)
                if file is not None:
                    file.pending.append(("cut", 0, b"") if op == "empty" else (op, offset, data))
            case "sync":
                file = self.seen.get(path)
                if file is not None:
                    file.settled()
                else:
                    for change in self.names.pop(path, []):
                        self._settle(*change, self.certain)

    def _name(self, kind: str, path: str, file: File | None) -> None:
        self._settle(kind, path, file, self.seen)
        self.names.setdefault(path.rpartition("/")[0], []).append((kind, path, file))

    @staticmethod
    def _settle(kind: str, path: str, file: File | None, names: dict[str, File | None]) -> None:
        if kind == "set":
            names[path] = file
        else:
            names.pop(path, None)

    def after_failure(self, target: Path, chosen: random.Random) -> None:
        """Make what a power failure may leave in `target`."""
        names = dict(self.certain)
        for changes in self.names.values():
            for change in changes[: chosen.randint(0, len(changes))]:
                self._settle(*change, names)
        shutil.rmtree(target, ignore_errors=True)
        for path in sorted(names):
            place = target / path.removeprefix(self.root).lstrip("/")
            if not place.parent.is_dir() and place != target:
                continue  # its directory is lost
            file = names[path]
            if file is None:
                place.mkdir(exist_ok=True, parents=place == target)
            else:
                place.write_bytes(file.after_failure(chosen))


def logged(path: Path, log: Path, work: Script) -> None:
    """Carry out the script in a child that logs its operations and the states that it has reached."""
    shim = armed()
    if shim is None:
        raise RuntimeError("power failures need the library, and so a C compiler")

    def run(_: int) -> None:
        shim.torture_arm(-1, LOG, str(path).encode(), str(log).encode())
        new_store(path)
        with Store.open(path) as store:
            shim.torture_mark(0)
            work.run(store, 0, shim.torture_mark)

    if in_child(run)[0]:
        raise RuntimeError("the undisturbed run failed")


def records(log: Path) -> list[tuple[str, str, str, int, bytes]]:
    found = []
    content, place = log.read_bytes(), 0
    while place < len(content):
        end = content.index(b"\n", place)
        op, path, other, offset, size = content[place:end].decode().split("\t")
        data_size = int(size)
        found.append((op, path, other, int(offset), content[end + 1 : end + 1 + data_size]))
        place = end + 1 + data_size
    return found


def power_failures(folder: Path, seconds: float, seed: int = 0) -> dict[str, tuple[int, list[str]]]:
    """Let the power fail at random operations until time is up; return trials and failures."""
    work, chosen = script(), random.Random(seed)
    path, target = folder / "logged", folder / "failed"
    shutil.rmtree(path, ignore_errors=True)
    logged(path, folder / "operations.log", work)
    operations = records(folder / "operations.log")
    trials, failures = 0, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stop = chosen.randrange(len(operations) + 1)
        disk, reached = Disk(str(path)), list[int]()
        disk.certain[str(path)] = disk.seen[str(path)] = None
        for op, place, other, offset, data in operations[:stop]:
            if op == "mark":
                reached.append(offset)
            else:
                disk.operate(op, place, other, offset, data)
        disk.after_failure(target, chosen)
        problem = wrong(target, work, reached)
        trials += 1
        if problem is not None:
            failures.append(f"operation {stop} of {len(operations)}: {problem}")
    return {"power failure": (trials, failures)}
