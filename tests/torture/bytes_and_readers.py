"""Bytes of a store's files that change by themselves, and one writer with several readers for a while."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from rapidin.errors import RapidinError
from rapidin.storage import Store
from tests.torture.faults import in_child, told
from tests.torture.oracle import WrongError, held, names, new_store, script, search


def altered_bytes(folder: Path, seconds: float, seed: int = 0) -> dict[str, tuple[int, list[str]]]:
    """Alter one byte, or cut a file short, until time is up: answers stay right, or are refused."""
    chosen, work = random.Random(seed), script()
    source, path = folder / "whole", folder / "altered"
    shutil.rmtree(source, ignore_errors=True)
    status, _ = in_child(lambda writes: _left_open(source, work, writes))
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the undisturbed run failed")
    state = work.states[-1]
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and file.stat().st_size]
    results: dict[str, tuple[int, list[str]]] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        file = path / chosen.choice(files).relative_to(source)
        content = bytearray(file.read_bytes())
        offset = chosen.randrange(len(content))
        kind = chosen.choice(("byte altered", "file cut short", "file removed"))
        if kind == "byte altered":
            content[offset] ^= 1 << chosen.randrange(8)
            file.write_bytes(content)
        elif kind == "file cut short":
            file.write_bytes(content[:offset])
        else:
            file.unlink()
        problem = None
        try:
            with Store.open(path) as store:
                search(store, state)
                if held(store) != state:
                    raise WrongError("samples differ")
        except RapidinError:
            pass  # refused
        except Exception as error:  # noqa: BLE001 - any other error is a failure
            problem = f"{type(error).__name__}: {error}"[:300]
        trials, failures = results.get(kind, (0, []))
        place = f"{file.relative_to(path)}, byte {offset} of {len(content)}"
        results[kind] = (trials + 1, failures + ([f"{place}: {problem}"] if problem else []))
    return results


def _left_open(path: Path, work, writes: int) -> None:
    """Make a store whose last commits are in the log only."""
    new_store(path)
    store = Store.open(path)
    work.run(store, 0, told(writes))
    os.kill(os.getpid(), signal.SIGKILL)


def soak(folder: Path, seconds: float, readers: int = 3, seed: int = 0) -> dict[str, tuple[int, list[str]]]:
    """Write, delete and compact while others search; each search must be right for the state that it sees."""
    path = folder / "soak"
    shutil.rmtree(path, ignore_errors=True)
    new_store(path)
    end = time.monotonic() + seconds
    children = []
    for number in range(readers + 1):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reads)
            try:
                count = _write(path, end, seed) if number == 0 else _read(path, end)
                os.write(writes, f"{count}\n".encode())
            except BaseException as error:  # noqa: BLE001 - told to the parent
                os.write(writes, f"0 {type(error).__name__}: {str(error)[:200]}\n".encode())
            os._exit(0)
        os.close(writes)
        children.append((child, reads))
    trials, failures = 0, []
    for child, reads in children:
        with os.fdopen(reads) as pipe:
            count, _, problem = pipe.read().strip().partition(" ")
        os.waitpid(child, 0)
        trials += int(count or 0)
        if problem:
            failures.append(problem)
    with Store.open(path) as store:
        if not store.verify().ok:
            failures.append("verify")
    return {"one writer and readers": (trials, failures)}


def _write(path: Path, end: float, seed: int) -> int:
    from tests.torture.oracle import Script

    chosen, count = random.Random(seed), 0
    with Store.open(path) as store:
        while time.monotonic() < end:
            work = Script()
            work.states = [held(store)]
            start = chosen.randrange(200)
            match chosen.randrange(5):
                case 0 if work.states[0]:
                    work.delete(chosen.sample(sorted(work.states[0]), len(work.states[0]) // 3))
                case 1 if work.states[0]:
                    work.compact()
                case 2 if work.states[0]:
                    work.change(sorted(work.states[0])[:9], chosen.randrange(3))
                case _:
                    work.commit(names(start, start + 12), chosen.randrange(4))
            work.run(store, 0, lambda _: None)
            if held(store) != work.states[-1]:
                raise WrongError("a change is not what it should be")
            count += 1
    return count


def _read(path: Path, end: float) -> int:
    count = 0
    while time.monotonic() < end:
        with Store.open(path) as store:
            for _ in range(10):
                with store.snapshot() as snapshot:
                    state = {
                        one.id: (one.metadata["version"], one.metadata["told"])
                        for block in snapshot.blocks()
                        for one in block.samples
                    }
                    _search_in(snapshot, state)
                count += 1
    return count


def _search_in(snapshot, state) -> None:
    class OfSnapshot:
        def snapshot(self):
            return _Kept(snapshot)

    search(OfSnapshot(), state)  # type: ignore[arg-type]


class _Kept:
    """A snapshot that stays open."""

    def __init__(self, snapshot) -> None:
        self._snapshot = snapshot

    def __enter__(self):
        return self._snapshot

    def __exit__(self, *_: object) -> None:
        pass
