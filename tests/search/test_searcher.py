"""A searcher inside an application: threads, event loops, other writers, closing, and a network that is held."""

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rapidin
from rapidin.errors import (
    ClosedError,
    FingerprintMismatchError,
    ModelError,
    RowError,
    SampleNotFoundError,
    SettingError,
    StoreMismatchError,
)
from rapidin.records.hits import SearchResult
from rapidin.search.closing_latch import ClosingLatch
from rapidin.storage.scan import CpuScan
from tests import worlds
from tests.storage.half_sources import merged_source

OPTIONS = {"k": 5, "opponents": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.write_rows(tmp_path_factory.mktemp("data") / "data.jsonl", worlds.rows(40))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Path:
    path = tmp_path_factory.mktemp("searcher") / "store"
    rapidin.ingest_files(path, [data], model=str(model_directory), projection_dim=1024, curvature=False)
    return path


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


@pytest.fixture
def network(model_directory: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(model_directory)


@pytest.fixture
def tokenizer(model_directory: Path):
    return AutoTokenizer.from_pretrained(model_directory)


def summary(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in (*result.proponents, *result.opponents)]


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """What `work` gives for each number, all at the same time."""
    found: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            found[number] = work(number)
        except BaseException as error:  # noqa: BLE001
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


# Threads


@pytest.mark.parametrize("bits", [4, 16])
def test_many_threads_find_what_one_finds(bits: int, tmp_path: Path, data: Path, model_directory: Path) -> None:
    """Searches of every kind at the same time; with 16 bits and `tokens`, torch multiplies decoded blocks."""
    rapidin.ingest_files(
        tmp_path / "store", [data], model=str(model_directory), projection_dim=1024, bits=bits, curvature=False
    )
    kinds: list[dict[str, object]] = [
        {},
        {"where": ["even=true"]},
        {"by_token": True},
        {"rerank": 6},
        {"spans": ["red"]},
    ]

    def search(number: int) -> SearchResult:
        return searcher.search(f"Name colour {number}.", f"It is red {number}", **OPTIONS, **kinds[number % 5])

    with rapidin.Searcher(tmp_path / "store") as searcher:
        alone = [search(number) for number in range(10)]
        together = in_threads(10, search)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, SearchResult)
        assert [id for id, _ in summary(one)] == [id for id, _ in summary(other)]
        np.testing.assert_allclose(
            [score for _, score in summary(one)], [score for _, score in summary(other)], atol=1e-6
        )
        assert len(one.by_token) == len(other.by_token)
        for mine, theirs in zip(one.proponents, other.proponents, strict=True):
            np.testing.assert_allclose(
                [token.influence for token in mine.token_influences],
                [token.influence for token in theirs.token_influences],
                atol=1e-6,
            )


def test_the_model_has_one_caller_and_the_store_several(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches that compare vectors let others at the model; there are never two at the model."""
    from rapidin.attribution import BatchRunner
    from rapidin.storage import Snapshot

    at_model = 0
    most_at_model = 0
    looking_up = threading.Barrier(3)  # passed only if three searches are past the model at the same time
    compute, search_ends = BatchRunner.rapidgrads, Snapshot.search_ends

    def counted(*arguments):
        nonlocal at_model, most_at_model
        at_model += 1
        most_at_model = max(most_at_model, at_model)
        time.sleep(0.01)
        yield from compute(*arguments)
        at_model -= 1

    def together(self, *arguments, **options):
        looking_up.wait(timeout=20)
        return search_ends(self, *arguments, **options)

    monkeypatch.setattr(BatchRunner, "rapidgrads", counted)
    monkeypatch.setattr(Snapshot, "search_ends", together)
    with rapidin.Searcher(store) as searcher:
        in_threads(3, lambda number: searcher.search(f"Name colour {number}.", "It is red", **OPTIONS))
    assert most_at_model == 1


def test_more_readers_than_any_pool_of_connections_holds(store: Path) -> None:
    with rapidin.Store.open(store) as opened, contextlib.ExitStack() as stack:
        snapshots = [stack.enter_context(opened.snapshot()) for _ in range(40)]
        assert {snapshot.samples for snapshot in snapshots} == {40}
        assert opened.count() == 40


# Sources of the nearest


def test_a_search_over_two_halves_finds_what_one_over_the_whole_finds(store: Path, tmp_path: Path) -> None:
    """Scores, hits of tokens and exact influences are equal to the last bit."""
    options = {**OPTIONS, "by_token": True, "rerank": 12}
    with contextlib.ExitStack() as stack:
        halves = []
        for number in range(2):
            copy = shutil.copytree(store, tmp_path / str(number))
            halves.append(stack.enter_context(rapidin.Store.open(copy)))
            halves[-1].delete(where=[f"even={'true' if number else 'false'}"])
        source = merged_source([half.snapshot for half in halves])
        with rapidin.Searcher(store) as whole, rapidin.Searcher(store, source=source) as divided:
            for where in ((), ("number<20",)):
                one = whole.search("Name colour 3.", "It is red", where=where, **options)
                other = divided.search("Name colour 3.", "It is red", where=where, **options)
                assert other == one
                assert {hit.metadata["even"] for hit in (*other.proponents, *other.opponents)} == {True, False}


def test_a_searcher_compares_vectors_with_the_scan_that_it_is_given(store: Path) -> None:
    class Counted(CpuScan):
        calls = 0

        def best(self, *arguments, **named):
            self.calls += 1
            return super().best(*arguments, **named)

    scan = Counted()
    with (
        rapidin.Store.open(store) as opened,
        rapidin.Searcher(opened) as plain,
        rapidin.Searcher(opened, source=lambda: opened.snapshot(scan)) as counted,
    ):
        found = counted.search("Name colour 3.", "It is red", **OPTIONS)
        assert scan.calls == 1
        assert summary(found) == summary(plain.search("Name colour 3.", "It is red", **OPTIONS))


# What others do to the store


def test_ingests_deletions_and_compactions_are_followed(own_store: Path, tmp_path: Path) -> None:
    def ids(searcher: rapidin.Searcher) -> set[str]:
        return {hit.id for hit in searcher.search("Name a colour.", "It is red", k=100).proponents}

    with rapidin.Searcher(own_store) as searcher:
        assert ids(searcher) == {f"row-{number}" for number in range(40)}
        more = worlds.write_rows(tmp_path / "more.jsonl", worlds.rows(10, first=40))
        rapidin.ingest_files(own_store, [more], curvature=False)
        assert ids(searcher) == {f"row-{number}" for number in range(50)}
        with rapidin.Store.open(own_store) as other:
            other.delete(where=["number<30"])
            assert ids(searcher) == {f"row-{number}" for number in range(30, 50)}
            other.compact()
        before = set((own_store / "segments").iterdir())
        assert ids(searcher) == {f"row-{number}" for number in range(30, 50)}
        assert searcher.info().samples == 20
        assert searcher.sample("row-45").metadata["number"] == 45
        with pytest.raises(SampleNotFoundError, match="row-3"):
            searcher.sample("row-3")
        with rapidin.Store.open(own_store) as other:
            other.build_index("rabitq")
            assert searcher.search("Name a colour.", "It is red", index="rabitq", k=3).index == "rabitq"
    assert len(before) == 1


def test_segments_stay_open_and_changed_files_are_noticed(own_store: Path) -> None:
    from rapidin.errors import StoreCorruptError

    with rapidin.Searcher(own_store) as searcher:
        searcher.search("Name a colour.", "It is red")
        kept = searcher.store._states.segments._kept
        (segment,) = kept.values()
        searcher.search("Name a colour.", "It is blue")
        assert list(kept.values()) == [segment]
        (file,) = (own_store / "segments").iterdir()
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        with pytest.raises(StoreCorruptError, match=file.name):
            searcher.search("Name a colour.", "It is red")


def test_searches_go_on_while_the_store_changes(own_store: Path, tmp_path: Path) -> None:
    """Readers in threads beside a writer that ingests, deletes and compacts: each sees one state of the store."""
    stop = threading.Event()
    seen: set[int] = set()

    def read(searcher: rapidin.Searcher) -> None:
        while not stop.is_set():
            found = searcher.search("Name a colour.", "It is red", k=1000).proponents
            numbers = {hit.metadata["number"] for hit in found}
            assert len(found) == len(numbers)
            assert len(numbers) % 10 == 0  # every change is of ten rows
            seen.add(len(numbers))

    def write() -> None:
        try:
            for round in range(2):
                first = 40 + 10 * round
                more = worlds.write_rows(tmp_path / f"{round}.jsonl", worlds.rows(10, first))
                rapidin.ingest_files(own_store, [more], curvature=False)
                with rapidin.Store.open(own_store) as other:
                    other.delete([f"row-{number}" for number in range(10 * round, 10 * round + 10)])
                    other.compact()
        finally:
            stop.set()

    with rapidin.Searcher(own_store) as searcher:
        in_threads(3, lambda number: write() if number == 0 else read(searcher))
        assert searcher.info().samples == 40
    assert seen <= {40, 50}
    assert seen


# Closing


def test_closing_waits_for_searches_and_refuses_later_ones(store: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def tell(step: str, done: int, total: int) -> None:
        inside.set()
        go_on.wait(20)

    searcher = rapidin.Searcher(store)
    found: list[SearchResult] = []
    search = threading.Thread(
        target=lambda: found.append(
            searcher.search("Name a colour.", "It is red", k=2, rerank=2, on_progress=tell)
        )
    )
    search.start()
    inside.wait(20)
    closing = threading.Thread(target=searcher.close)
    closing.start()
    while not searcher.closed:
        time.sleep(0.001)
    with pytest.raises(ClosedError, match=r"store was closed; open a new one"):
        searcher.search("Name a colour.", "It is red")
    assert closing.is_alive()
    go_on.set()
    search.join()
    closing.join()
    assert len(found[0].proponents) == 2
    searcher.close()
    for attempt in (searcher.info, lambda: searcher.sample("row-1"), lambda: asyncio.run(searcher.asearch("a"))):
        with pytest.raises(ClosedError):
            attempt()


def test_a_file_of_queries_ends_where_the_searcher_is_closed(store: Path, data: Path) -> None:
    searcher = rapidin.Searcher(store)
    results = searcher.search_file(data, k=1)
    assert next(results).proponents
    searcher.close()  # does not wait for who has left off in the middle
    with pytest.raises(ClosedError):
        next(results)


def test_a_search_cannot_close_its_own_searcher(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        with pytest.raises(ClosedError, match="close it afterwards"):
            searcher.search("A", "B", k=1, rerank=1, on_progress=lambda *_: searcher.close())
        assert searcher.search("A", "B", k=1).proponents


def test_a_store_that_was_given_stays_open(store: Path) -> None:
    with rapidin.Store.open(store) as opened:
        with rapidin.Searcher(opened) as searcher:
            searcher.search("Name a colour.", "It is red")
        assert opened.count() == 40


def test_only_the_first_to_close_a_gate_cleans_up() -> None:
    gate = ClosingLatch("the gate")
    with gate.inside(), gate.inside(), pytest.raises(ClosedError, match="the gate cannot be closed"):
        gate.close()
    assert not gate.closed
    assert sorted(in_threads(4, lambda _: gate.close())) == [False, False, False, True]  # type: ignore[type-var]


# Event loops


def test_the_event_loop_goes_on_while_searches_run(store: Path, tmp_path: Path) -> None:
    data = worlds.write_rows(tmp_path / "queries.jsonl", worlds.rows(4))

    ticks = 0
    waited: list[bool] = []

    def tell(*_: object) -> None:
        """Lets the search go on when the loop has."""
        seen, until = ticks, time.monotonic() + 20
        while ticks == seen and time.monotonic() < until:
            time.sleep(0.001)
        waited.append(ticks > seen)

    async def run() -> tuple[list[SearchResult], list[SearchResult]]:
        async with rapidin.Searcher(store) as searcher:
            over = False

            async def tick() -> None:
                nonlocal ticks
                while not over:
                    await asyncio.sleep(0.001)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            found = await asyncio.gather(
                *(
                    searcher.asearch(
                        "Name a colour.", f"It is {n}", k=3, rerank=8, by_token=True, on_progress=tell
                    )
                    for n in range(4)
                )
            )
            over = True
            await ticking
            return found, [one async for one in searcher.asearch_file(data, k=1)]

    found, of_file = asyncio.run(run())
    assert len(waited) >= 4
    assert all(waited)
    with rapidin.Searcher(store) as searcher:
        alone = [searcher.search("Name a colour.", f"It is {n}", k=3, rerank=8, by_token=True) for n in range(4)]
        assert [summary(one) for one in of_file] == [summary(one) for one in searcher.search_file(data, k=1)]
    assert [[id for id, _ in summary(one)] for one in found] == [[id for id, _ in summary(one)] for one in alone]


def test_a_cancelled_task_leaves_the_searcher_usable(store: Path) -> None:
    async def run() -> None:
        inside, go_on = threading.Event(), threading.Event()

        def tell(*_: object) -> None:
            inside.set()
            go_on.wait(20)

        async with rapidin.Searcher(store) as searcher:
            task = asyncio.create_task(searcher.asearch("A", "It is red", k=1, rerank=1, on_progress=tell))
            others = [asyncio.create_task(searcher.asearch("A", f"It is {n}", k=1)) for n in range(10)]
            await asyncio.to_thread(inside.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task  # at once, although its thread still waits
            others[9].cancel()
            go_on.set()
            found = await asyncio.gather(*others, return_exceptions=True)
            assert isinstance(found[9], asyncio.CancelledError)
            assert all(isinstance(one, SearchResult) for one in found[:9])
            with pytest.raises(SettingError, match="-k 0 cannot be used"):
                await searcher.asearch("A", "B", k=0)
            assert (await searcher.asearch("A", "B", k=1)).proponents

    asyncio.run(run())


def test_tasks_that_wait_while_it_is_closed_are_told(store: Path) -> None:
    async def run() -> list[object]:
        searcher = rapidin.Searcher(store)
        tasks = [asyncio.create_task(searcher.asearch("A", f"It is {n}", k=1, rerank=1)) for n in range(30)]
        await asyncio.sleep(0)
        await searcher.aclose()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(run())
    assert {type(one) for one in found} <= {SearchResult, ClosedError}
    assert isinstance(found[-1], ClosedError)


# A network that the application holds


def generated(network: torch.nn.Module, tokenizer) -> str:
    ids = tokenizer("Name a colour.", return_tensors="pt")["input_ids"]
    return tokenizer.decode(network.generate(ids, max_new_tokens=5, do_sample=False)[0])


def test_a_held_network_gives_the_same_and_is_given_back(store: Path, network, tokenizer) -> None:
    with rapidin.Searcher(store) as searcher:
        expected = searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6)
        answered = searcher.search("Name a colour.", max_new_tokens=8)
    network.train()
    network.model.layers[0].eval()
    network.lm_head.weight.requires_grad_(False)
    network.model.norm.weight.grad = torch.ones_like(network.model.norm.weight)
    before = [part.training for part in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    with rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher:
        first = searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6)
        text = generated(network, tokenizer)
        again = searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6)
        assert searcher.search("Name a colour.", max_new_tokens=8).query == answered.query
        assert generated(network, tokenizer) == text
    assert summary(first) == summary(again)
    for mine, theirs in ((first, expected), (again, expected)):
        assert [id for id, _ in summary(mine)] == [id for id, _ in summary(theirs)]
        np.testing.assert_allclose(
            [score for _, score in summary(mine)], [score for _, score in summary(theirs)], atol=1e-6
        )
    assert [part.training for part in network.modules()] == before
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert torch.equal(network.model.norm.weight.grad, torch.ones_like(network.model.norm.weight))
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert not any(part._forward_hooks for part in network.modules())


def test_the_application_may_generate_in_another_thread_with_the_lock(store: Path, network, tokenizer) -> None:
    expected = generated(network.eval(), tokenizer)
    with rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher:
        alone = summary(searcher.search("A", "It is red", k=5, rerank=5))

        def work(number: int) -> object:
            if number:
                return [summary(searcher.search("A", "It is red", k=5, rerank=5)) for _ in range(2)]
            texts = set()
            for _ in range(5):
                with searcher.lock:
                    texts.add(generated(network, tokenizer))
            return texts

        texts, *found = in_threads(3, work)
    assert texts == {expected}
    assert found == [[alone] * 2] * 2


def test_another_network_is_refused(
    store: Path, network, tokenizer, other_model_directory: Path, tmp_path: Path
) -> None:
    other = AutoModelForCausalLM.from_pretrained(other_model_directory).train()
    with pytest.raises(FingerprintMismatchError, match=r"\d+ of \d+ weight tensors of its model differ"):
        rapidin.Searcher(store, model=other, tokenizer=tokenizer)
    assert other.training
    small = AutoModelForCausalLM.from_pretrained(worlds.save_model(tmp_path / "small", intermediate_size=48))
    with pytest.raises(FingerprintMismatchError, match=r"has the shape \(48, 32\) instead of \(64, 32\)"):
        rapidin.Searcher(store, model=small, tokenizer=tokenizer)
    deep = AutoModelForCausalLM.from_pretrained(worlds.save_model(tmp_path / "deep", num_hidden_layers=1))
    with pytest.raises(FingerprintMismatchError, match=r"it has no parameter 'model\.layers\.1\."):
        rapidin.Searcher(store, model=deep, tokenizer=tokenizer)
    with torch.no_grad():  # one number of one tensor
        network.model.layers[1].mlp.up_proj.weight[3, 4] += 0.01
    with pytest.raises(FingerprintMismatchError, match=r"1 of \d+ .* 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        rapidin.Searcher(store, model=network, tokenizer=tokenizer)
    with pytest.raises(ModelError, match="Linear is no causal language model"):
        rapidin.Searcher(store, model=torch.nn.Linear(2, 2), tokenizer=tokenizer)


def test_what_does_not_go_with_a_network_is_refused(store: Path, network, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="tokenizer goes with a network"):
        rapidin.Searcher(store, tokenizer=tokenizer)
    with pytest.raises(SettingError, match="leave out the adapter's place"):
        rapidin.Searcher(store, model=network, adapter="somewhere", tokenizer=tokenizer)
    from tests.text import tiny_tokenizers

    network.train()
    with pytest.raises(StoreMismatchError, match="take the tokenizer of that time"):
        rapidin.Searcher(store, model=network, tokenizer=tiny_tokenizers.word_level())
    assert network.training


def test_types_that_hold_the_checkpoints_numbers_are_compared(
    tmp_path: Path, data: Path, model_directory: Path, tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.bfloat16).save_pretrained(half)
    tokenizer.save_pretrained(half)
    rapidin.ingest_files(tmp_path / "store", [data], model=str(half), projection_dim=1024, curvature=False)
    wide = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32)
    with rapidin.Searcher(tmp_path / "store", model=wide, tokenizer=tokenizer) as searcher:
        assert searcher.search("A", "B").proponents
    assert "could be compared" not in caplog.text
    other = AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(FingerprintMismatchError, match=r"1 of \d+ .* 'lm_head.weight'"):
        rapidin.Searcher(tmp_path / "store", model=other, tokenizer=tokenizer)


def test_a_network_rounded_from_its_checkpoint_is_taken_with_a_warning(
    store: Path, network, tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with rapidin.Searcher(store, model=network.bfloat16(), tokenizer=tokenizer) as searcher:
        assert searcher.search("A", "B").proponents
    assert "5 of 21 weight tensors of the given network" in caplog.text  # the norms, which are ones


def store_with_adapter(path: Path, data: Path, model_directory: Path, adapter_directory: Path) -> Path:
    rapidin.ingest_files(
        path,
        [data],
        model=str(model_directory),
        adapter=str(adapter_directory),
        projection_dim=1024,
        curvature=False,
    )
    return path


def test_a_held_network_with_an_adapter(
    tmp_path: Path, data: Path, model_directory: Path, adapter_directory: Path, tokenizer
) -> None:
    path = store_with_adapter(tmp_path / "store", data, model_directory, adapter_directory)
    with rapidin.Searcher(path) as searcher:
        expected = summary(searcher.search("Name a colour.", "It is red"))
    base = AutoModelForCausalLM.from_pretrained(model_directory)
    with pytest.raises(FingerprintMismatchError, match="has no parameter"):
        rapidin.Searcher(path, model=base, tokenizer=tokenizer)
    adapted = peft.PeftModel.from_pretrained(base, adapter_directory)
    with rapidin.Searcher(path, model=adapted, tokenizer=tokenizer) as searcher:
        found = summary(searcher.search("Name a colour.", "It is red"))
    assert [id for id, _ in found] == [id for id, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-6)
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    adapted.peft_config["default"].lora_alpha = 999
    with pytest.raises(FingerprintMismatchError, match="settings of its adapter"):
        rapidin.Searcher(path, model=adapted, tokenizer=tokenizer)
    adapted.peft_config["default"].lora_alpha = 8
    with torch.no_grad():
        next(p for n, p in adapted.named_parameters() if "lora_B" in n)[0, 0] += 1
    with pytest.raises(FingerprintMismatchError, match=r"1 of \d+ weight tensors of its adapter differ"):
        rapidin.Searcher(path, model=adapted, tokenizer=tokenizer)


def _scaled(adapted) -> None:
    for layer in adapted.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.scale_layer(5.0)


def _another(adapted, names: list[str]) -> None:
    adapted.add_adapter("other", adapted.peft_config["default"])
    adapted.base_model.set_adapter(names)


WAYS = {
    "scaled": (_scaled, r"scaling of its adapter in '.*' is .* instead of"),
    "doubled": (lambda adapted: _another(adapted, ["default", "other"]), "is 'default' and 'other': make"),
    "exchanged": (lambda adapted: _another(adapted, ["other"]), "the active adapter in .* is 'other': make"),
    "disabled": (lambda adapted: adapted.base_model.disable_adapter_layers(), "its adapter is disabled in"),
    "merged": (lambda adapted: adapted.merge_adapter(), "differ|merged"),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_that_acts_otherwise_is_refused(
    tmp_path: Path, data: Path, model_directory: Path, adapter_directory: Path, tokenizer, way: str
) -> None:
    path = store_with_adapter(tmp_path / "store", data, model_directory, adapter_directory)
    base = AutoModelForCausalLM.from_pretrained(model_directory)
    adapted = peft.PeftModel.from_pretrained(base, adapter_directory)
    change, said = WAYS[way]
    change(adapted)
    with pytest.raises(FingerprintMismatchError, match=said):
        rapidin.Searcher(path, model=adapted, tokenizer=tokenizer)


def test_an_adapter_on_a_network_whose_store_has_none_is_refused(store: Path, network, tokenizer) -> None:
    layers = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(layers, network)
    with pytest.raises(FingerprintMismatchError, match="q_proj"):
        rapidin.Searcher(store, model=network, tokenizer=tokenizer)


def test_the_callers_modes_do_not_matter(store: Path, network, tokenizer) -> None:
    with rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher:
        expected = summary(searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6))
    modes = (torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16))
    for mode in modes:
        with mode(), rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher:
            assert summary(searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6)) == expected
            searcher.search("Name a colour.", max_new_tokens=4)
        with rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher, mode():
            assert summary(searcher.search("Name a colour.", "It is red", **OPTIONS, rerank=6)) == expected


def test_a_network_made_in_inference_mode_is_refused(store: Path, model_directory: Path, tokenizer) -> None:
    with torch.inference_mode():
        network = AutoModelForCausalLM.from_pretrained(model_directory)
        for name, parameter in list(network.named_parameters()):
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, torch.nn.Parameter(parameter.clone()))
    with pytest.raises(FingerprintMismatchError, match=r"made within torch\.inference_mode"):
        rapidin.Searcher(store, model=network, tokenizer=tokenizer)


def test_hooks_of_the_application_are_reported(
    store: Path, network, tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    network.model.layers[0].register_forward_hook(lambda module, arguments, output: None)
    with rapidin.Searcher(store, model=network, tokenizer=tokenizer):
        pass
    assert "1 modules of the given network have forward hooks, for example 'model.layers.0'" in caplog.text


def test_a_prompt_with_a_token_that_the_model_lacks_is_named(store: Path, network, tokenizer) -> None:
    tokenizer.add_tokens(["zebra"])
    with rapidin.Searcher(store, model=network, tokenizer=tokenizer) as searcher:
        for generation in ("It is red", None):
            with pytest.raises(RowError, match=r"the query: its text has the token 'zebra', number \d+, and the"):
                searcher.search("Name a zebra.", generation)


# Queries


def test_a_generation_without_a_prompt(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(None, "It is red 37", k=3)
        assert (result.query.prompt, result.query.generation) == ("", "It is red 37")
        assert len(result.proponents) == 3
        with pytest.raises(SettingError, match="nothing is asked"):
            searcher.search()
        with pytest.raises(SettingError, match="--generation is empty"):
            searcher.search(None, " ")
