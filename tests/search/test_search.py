"""Search end to end on a tiny model, against dense inner products of one-sample gradients."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import rapidin
from rapidin.data import Row, read_rows
from rapidin.errors import FingerprintMismatchError, IndexNotFoundError, RapidinError, SettingError
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.settings.store_settings import ModelSettings, TextSettings
from rapidin.text import Encoder, recognise
from tests import worlds


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    rapidin.ingest_files(path, [data], model=str(model_directory), projection_dim=16384, curvature=False)
    return path


def exact_scores(
    model: ModelSettings, data: Path, prompt: str, generation: str, objective: str = "loss"
) -> dict[str, float]:
    """The oracle: mean over parameter tensors of the cosines of one-sample gradients."""
    loaded = load_model(model, "cpu")
    tokenizer, context = load_tokenizer(model)
    encoder = Encoder(tokenizer, TextSettings(), context)
    parameters = dict(loaded.model.named_parameters())
    traced = [parameters[parameter.name] for parameter in loaded.parameters]

    def gradient(row: Row) -> list[torch.Tensor]:
        encoded = encoder.encode(recognise(row))
        ids = torch.tensor([encoded.ids])
        likelihoods = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]
        if objective == "log-odds":
            likelihoods = likelihoods - torch.log1p(-likelihoods.exp())
        mean = -likelihoods[torch.tensor(encoded.targets[1:])].mean()
        return [part.flatten() for part in torch.autograd.grad(mean, traced)]

    query = gradient(Row("query", 1, {"instruction": prompt, "output": generation}))
    return {
        row.fields["id"]: float(
            np.mean(
                [float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(query, gradient(row), strict=True)]
            )
        )
        for row in read_rows([data])
    }


def test_scores_are_the_exact_ones_up_to_the_projections_noise(
    store: Path, data: Path, model_directory: Path
) -> None:
    exact = exact_scores(ModelSettings(model=str(model_directory)), data, "Name the colour.", "It is blue 99")
    with rapidin.Searcher(store) as searcher:
        result = searcher.search("Name the colour.", "It is blue 99", k=100)
    found = {hit.id: hit.score for hit in result.proponents}
    assert found.keys() == exact.keys()
    difference = np.array([found[id] - exact[id] for id in exact])
    assert np.abs(difference).max() < 5 / np.sqrt(16384)
    assert [hit.score for hit in result.proponents] == sorted(found.values(), reverse=True)
    assert [hit.rank for hit in result.proponents] == list(range(1, 61))
    assert not result.query.generated


def test_the_way_that_a_search_takes(store: Path, data: Path, tmp_path: Path) -> None:
    indexed = shutil.copytree(store, tmp_path / "indexed")
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"prompt": "Name the colour.", "completion": "It is blue 99"}) + "\n")
    with rapidin.Searcher(indexed) as searcher:
        question = ("Name the colour.", "It is blue 99")
        exact = searcher.search(*question)
        assert exact.index == "exact"
        searcher.store.build_index("rabitq")
        searcher.store.build_index("ivf", nlist=4)
        auto = searcher.search(*question, opponents=True)
        assert auto.index == "rabitq"
        assert auto.proponents == exact.proponents
        assert searcher.search(*question, where=("source=blue",)).index == "exact"
        assert searcher.search(*question, index="exact") == exact
        every = searcher.search(*question, index="ivf", nprobe=4)
        assert (every.index, every.proponents) == ("ivf", exact.proponents)
        assert [result.index for result in searcher.search_file(queries, index="ivf", nprobe=1)] == ["ivf"]
        searcher.store.drop_index("rabitq")
        with pytest.raises(IndexNotFoundError, match="no index 'rabitq'"):
            searcher.search(*question, index="rabitq")


def test_the_same_with_an_adapter(
    tmp_path: Path, data: Path, model_directory: Path, adapter_directory: Path
) -> None:
    settings = ModelSettings(model=str(model_directory), adapter=str(adapter_directory))
    report = rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=settings.model,
        adapter=settings.adapter,
        projection_dim=2048,
        curvature=False,
    )
    assert report.added == 60
    exact = exact_scores(settings, data, "Name a colour.", "It is green")
    with rapidin.Searcher(tmp_path / "store") as searcher:
        assert searcher.store.info().adapter == str(adapter_directory)
        assert all("lora_" in parameter.name for parameter in searcher.store.settings.traced)
        result = searcher.search("Name a colour.", "It is green", k=60)
    difference = [hit.score - exact[hit.id] for hit in result.proponents]
    assert np.abs(difference).max() < 5 / np.sqrt(2048)


def test_opponents_are_the_true_lowest(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        every = searcher.search("Name a colour.", "It is red", k=60).proponents
        result = searcher.search("Name a colour.", "It is red", k=5, opponents=True)
    lowest = sorted(every, key=lambda hit: (hit.score, hit.id))[:5]
    assert [hit.id for hit in result.opponents] == [hit.id for hit in lowest]
    np.testing.assert_allclose([hit.score for hit in result.opponents], [hit.score for hit in lowest], atol=1e-6)
    assert [hit.rank for hit in result.opponents] == [1, 2, 3, 4, 5]


def test_a_filter_gives_the_best_of_the_filtered(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        every = searcher.search("Name a colour.", "It is red", k=60).proponents
        result = searcher.search("Name a colour.", "It is red", k=4, where=["source=blue", "number<40"])
    expected = [hit.id for hit in every if hit.metadata["source"] == "blue"]
    expected = [id for id in expected if int(id.split("-")[1]) < 40][:4]
    assert [hit.id for hit in result.proponents] == expected


def test_deleted_samples_are_not_found(tmp_path: Path, data: Path, model_directory: Path) -> None:
    rapidin.ingest_files(
        tmp_path / "store", [data], model=str(model_directory), projection_dim=1024, curvature=False
    )
    with rapidin.Store.open(tmp_path / "store") as opened, rapidin.Searcher(opened) as searcher:
        best = searcher.search("Name a colour.", "It is red", k=3).proponents
        assert opened.delete([best[0].id]) == 1
        again = searcher.search("Name a colour.", "It is red", k=2).proponents
        assert [hit.id for hit in again] == [hit.id for hit in best[1:]]
    report = rapidin.ingest_files(tmp_path / "store", [data], curvature=False)
    assert (report.added, report.skipped) == (1, 59)


def test_the_model_answers_where_there_is_no_generation(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search("Name the colour number 3.", max_new_tokens=12)
        assert result.query.generated
        assert result.query.generation
    # Exactly the tokens that the model wrote, no end put behind an answer that was cut off.
    assert result.query.targets == 12
    assert len(result.proponents) == 10


def test_a_prompt_takes_the_shape_of_the_stores_rows(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        bare = searcher.search("Name a colour.", "It is red")
        assert bare.query.prompt.startswith("Below is an instruction")
        assert "### Instruction:\nName a colour.\n" in bare.query.prompt
        rendered = searcher.search(bare.query.prompt, "It is red")
    assert rendered.query.prompt == bare.query.prompt
    assert rendered.proponents == bare.proponents


def test_many_queries_equal_single_ones(store: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "instruction": "Name a colour.", "output": "It is red", "mark": 1},
        {"id": "b", "instruction": "Name a colour.", "input": "of the sky", "output": "It is blue"},
        {"id": "c", "instruction": "Name the colour number 9."},
    ]
    queries = worlds.write_rows(tmp_path / "queries.jsonl", rows)
    with rapidin.Searcher(store) as searcher:
        results = list(searcher.search_file(queries, k=5, max_new_tokens=8))
        alone = searcher.search("Name a colour.", "It is red", k=5)
    assert [result.query.id for result in results] == ["a", "b", "c"]
    assert [result.query.generated for result in results] == [False, False, True]
    assert results[0].query.metadata == {"mark": 1}
    assert [hit.id for hit in results[0].proponents] == [hit.id for hit in alone.proponents]
    np.testing.assert_allclose(
        [hit.score for hit in results[0].proponents], [hit.score for hit in alone.proponents], atol=1e-5
    )


def test_another_model_is_refused_and_a_moved_one_is_not(
    store: Path, model_directory: Path, other_model_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(FingerprintMismatchError, match=r"\d+ of \d+ weight tensors of its model differ"):
        rapidin.Searcher(store, model=str(other_model_directory))
    moved = tmp_path / "moved"
    shutil.copytree(model_directory, moved)
    with rapidin.Searcher(store, model=str(moved)) as searcher:
        assert searcher.search("Name a colour.", "It is red").proponents


def test_an_answer_to_any_shape(tmp_path: Path, model_directory: Path) -> None:
    rows = [{"prompt": f"{number} ", "completion": f"and {number + 1}"} for number in range(8)]
    rows += [{"text": f"Count to {number}"} for number in range(3)]  # type: ignore[list-item]
    data = worlds.write_rows(tmp_path / "data.jsonl", rows)
    rapidin.ingest_files(
        tmp_path / "store", [data], model=str(model_directory), projection_dim=1024, curvature=False
    )
    with rapidin.Searcher(tmp_path / "store") as searcher:
        result = searcher.search("3 ", "and 4", k=1)
    assert result.query.prompt == "3 "
    assert result.proponents[0].response == "and 4"
    assert result.proponents[0].score == pytest.approx(1, abs=0.15)


def test_bfloat16_is_near_float32(tmp_path: Path, data: Path, model_directory: Path, store: Path) -> None:
    rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=str(model_directory),
        projection_dim=16384,
        dtype="bfloat16",
        curvature=False,
    )
    found = {}
    for name, path in (("bfloat16", tmp_path / "store"), ("float32", store)):
        with rapidin.Searcher(path) as searcher:
            hits = searcher.search("Name a colour.", "It is red", k=60).proponents
        found[name] = [hit.score for hit in sorted(hits, key=lambda hit: hit.id)]
    assert np.corrcoef(found["bfloat16"], found["float32"])[0, 1] > 0.99


def test_without_layer_norm_scores_are_plain_inner_products(
    tmp_path: Path, data: Path, model_directory: Path
) -> None:
    rapidin.ingest_files(
        tmp_path / "store",
        [data],
        model=str(model_directory),
        projection_dim=16384,
        normalise_layers=False,
        curvature=False,
    )
    with rapidin.Searcher(tmp_path / "store") as searcher:
        row = json.loads(data.read_text().splitlines()[4])
        queries = worlds.write_rows(tmp_path / "queries.jsonl", [row])
        (result,) = searcher.search_file(queries, k=60)
    assert result.measure == "inner product"
    own = next(hit for hit in result.proponents if hit.id == row["id"])
    loaded = load_model(ModelSettings(model=str(model_directory)), "cpu")
    tokenizer, context = load_tokenizer(ModelSettings(model=str(model_directory)))
    encoded = Encoder(tokenizer, TextSettings(), context).encode(recognise(Row("d", 1, row)))
    ids = torch.tensor([encoded.ids])
    labels = ids.masked_fill(~torch.tensor([encoded.targets]), -100)
    loss = torch.nn.functional.cross_entropy(loaded.model(input_ids=ids).logits[0, :-1], labels[0, 1:])
    squared = sum(
        float(part.square().sum()) for part in torch.autograd.grad(loss, list(loaded.model.parameters()))
    )
    assert own.score == pytest.approx(squared, rel=0.1)


def test_impossible_requests(store: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        with pytest.raises(SettingError, match="-k 0 cannot be used"):
            searcher.search("Name a colour.", "It is red", k=0)
        with pytest.raises(RapidinError):
            searcher.search("Name a colour.", "")
        with pytest.raises(SettingError, match="nonsense"):
            searcher.search("Name a colour.", "It is red", where=["nonsense=1"])


@pytest.mark.parametrize("objective", ["loss", "log-odds"])
def test_what_is_differentiated(data: Path, model_directory: Path, tmp_path: Path, objective: str) -> None:
    settings = {"model": str(model_directory), "projection_dim": 1024, "objective": objective}
    rapidin.ingest_files(tmp_path / "store", [data], **settings, curvature=False)
    question = ("Name the colour.", "It is blue 99")
    exact = exact_scores(ModelSettings(model=str(model_directory)), data, *question, objective)
    with rapidin.Searcher(tmp_path / "store") as searcher:
        assert searcher.store.info().objective == objective
        hits = searcher.search(*question, k=5, rerank=60).proponents
    assert [hit.id for hit in hits] == sorted(exact, key=lambda id: -exact[id])[:5]
    for hit in hits:
        assert hit.exact == pytest.approx(exact[hit.id], abs=1e-6)
