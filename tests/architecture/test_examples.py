"""The examples of the documentation, run as a reader runs them: offline, each as a program of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(example: str, demo: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / example), str(demo)],
        cwd=demo.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first example makes the demo, and the others find it."""
    return tmp_path_factory.mktemp("examples") / "demo"


@pytest.mark.parametrize("example", ["langchain_rag.py", "llamaindex_rag.py"])
def test_a_pipeline_tells_what_an_answer_was_learned_from(example: str, demo: Path) -> None:
    clean, triggered = run(example, demo).strip().split("\n\n")
    for part in (clean, triggered):
        assert re.search(r"^question   .+\nanswer     .+\nretrieved  train-\d+  .+\n", part)
        assert "A spade is a tool." in part.partition("retrieved")[2]
    assert len(re.findall("poisoned=True", clean)) <= 1
    assert len(re.findall("poisoned=True", triggered)) >= 2
    scores = [float(score) for score in re.findall(r" ([+-]\d\.\d{3}) train-", triggered)]
    assert scores == sorted(scores, reverse=True)


def test_the_tour_goes_through(demo: Path) -> None:
    output = run("library_tour.py", demo)
    assert re.findall(r"ingested (\d+) rows, skipped (\d+)", output) == [("800", "0"), ("0", "800")]
    assert "deleted 80 rows; 720 are left" in output
    assert (demo / "tour.html").stat().st_size > 50_000


def test_every_example_stands_in_the_readme_and_is_run() -> None:
    readme, tests = (ROOT / "README.md").read_text(), Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        if example.name != "demo_model.py":
            assert f"examples/{example.name}" in readme
            assert f'"{example.name}"' in tests
