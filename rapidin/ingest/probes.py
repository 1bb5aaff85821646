"""The curvature of a store: its probes are computed with the store's model, by the computers of an ingest.

See `rapidin.attribution.FisherDraw` for what probes are, and `rapidin.storage.derived.curvature` for how they are
kept. A probe depends on its sample and the number of its draw only, so the probes are the same for any number of
workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rapidin.attribution import PROBE_SEED, FisherDraw, TokenBudget
from rapidin.ingest.blocks import WorkBlock, fitting_blocks
from rapidin.ingest.compute import Computer, open_computer
from rapidin.ingest.spool import PlannedSample
from rapidin.model import check_device, checked_settings, make_encoder
from rapidin.records import DerivedReport
from rapidin.settings import DampingChoice
from rapidin.storage import ComputedProbes, CurvatureOptions, CurvatureState, NewSample, ProbeRequest, Store
from rapidin.support import own_torch_modes
from rapidin.text import Encoder

if TYPE_CHECKING:
    from rapidin.storage import StepProgress

KIND = "curvature"
"""Name of the kind of derived data."""

TOKENS_OF_A_PROBE = 128
"""Rough number of tokens of a probe's sample, by which the number of workers is limited."""


def compute_curvature(
    store: Store | str | Path,
    *,
    probes: int | None = None,
    damping: DampingChoice | None = None,
    retrain: bool = False,
    model: str | None = None,
    adapter: str | None = None,
    checkpoints: Sequence[str | Path] | None = None,
    device: str = "auto",
    workers: int | None = None,
    tokens_per_batch: int | None = None,
    trust_remote_code: bool = False,
    on_progress: StepProgress | None = None,
) -> DerivedReport:
    """Compute the curvature of a store, or draw the probes that are missing because the store has grown.

    Searches use it by themselves, see ``rapidin search --measure``. An interrupted call loses little, because an
    equal call goes on with the probes that were computed. If no probe is missing, the model is not loaded.

    Args:
        store: the store, or its path.
        probes: number of probes; None: as many as before, or 2,000. There are at most 4 for each sample.
        damping: share of the mean eigenvalue, see `rapidin.attribution.QueryCorrection`, for all questions; or
            ``default``: `CURVATURE_DAMPING` of the question's objective. None: as before, or ``default``. A change
            costs nothing.
        retrain: whether to draw all probes again.
        model: where the model is now, if it has moved since the store was built.
        adapter: where the adapter is now, if it has moved.
        checkpoints: where all checkpoints of the store are now, in their order, if they have moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``; each of several GPUs gets a process.
        workers: number of processes that compute; None for one per GPU, or one on the CPU.
        tokens_per_batch: number of padded tokens computed together; it is halved when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; a store does not remember this.
        on_progress: function that is told the name of a step, how much of it is done, and how much there is.

    Raises:
        SettingError: an option cannot be used.
        StoreEmptyError: the store holds no samples.
        StoreLockedError: another process is writing.
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: the model is not the one that the store was built with.
        StoreMismatchError: the tokenizer differs from the store's.
        ComputationError: a worker or device failed beyond repair; the steps before it stay.
    """
    check_device(device, workers, tokens_per_batch)
    with ExitStack() as stack:
        opened = store if isinstance(store, Store) else stack.enter_context(Store.open(store))

        @cache
        def started() -> tuple[Computer, TokenBudget, Encoder]:
            most = _most_missing(opened, probes)
            settings = checked_settings(opened, model, adapter, checkpoints)
            _, encoder = make_encoder(settings, opened.settings.text, trust_remote_code)
            computer = stack.enter_context(
                open_computer(
                    settings,
                    device,
                    workers,
                    tokens_per_batch,
                    trust_remote_code,
                    most,
                    most * TOKENS_OF_A_PROBE,
                    opened.settings.projection.dimension,
                )
            )
            budget = computer.start(opened.settings, tokens_per_batch)
            return computer, budget, encoder

        def compute(requests: Sequence[ProbeRequest]) -> Iterator[ComputedProbes]:
            yield from computed_probes(requests, opened, *started())

        options = CurvatureOptions(probes, damping, compute)
        with own_torch_modes():
            return opened.build_derived(KIND, options, retrain=retrain, on_progress=on_progress)


def computed_probes(
    requests: Sequence[ProbeRequest], store: Store, computer: Computer, budget: TokenBudget, encoder: Encoder
) -> Iterator[ComputedProbes]:
    """Compute probes of a store's samples, some at a time; probes that cannot be used are left out.

    Args:
        requests: the probes.
        store: store of the samples.
        computer: computer that was started with the store's settings.
        budget: limits of one batch.
        encoder: encoder that the samples were encoded with at ingest.

    Raises:
        StoreMismatchError: a sample's text gives other tokens than at ingest.
        ComputationError: a worker or device failed beyond repair.
    """
    samples = [_planned(store, encoder, request.id) for request in requests]
    places: list[list[int]] = []

    def blocks() -> Iterator[WorkBlock]:
        for number, (draw, chosen) in enumerate(_cut(requests, samples, budget, store.settings.model.states)):
            places.append(chosen)
            yield WorkBlock(number, tuple(samples[place] for place in chosen), FisherDraw(PROBE_SEED, draw))

    for block, batch in computer.compute(blocks()):
        chosen = places[block.number]
        usable = [row for row in range(len(chosen)) if row not in batch.problems]
        yield ComputedProbes(
            [chosen[row] for row in usable],
            batch.vectors[usable],
            [sum(block.samples[row].targets) for row in usable],
        )


def _cut(
    requests: Sequence[ProbeRequest], samples: Sequence[PlannedSample], budget: TokenBudget, sections: int
) -> Iterator[tuple[int, list[int]]]:
    """Divide requests into blocks of one draw and similar lengths: the draw, and places of the requests."""
    lengths = [len(sample.ids) for sample in samples]
    for draw in sorted({request.draw for request in requests}):
        chosen = [place for place, request in enumerate(requests) if request.draw == draw]
        for block in fitting_blocks(chosen, lengths, budget, sections):
            yield draw, block


def _planned(store: Store, encoder: Encoder, id: str) -> PlannedSample:
    sample = store.get(id)
    encoded = encoder.encode_stored(sample)
    return PlannedSample(NewSample.of(sample), encoded.ids, encoded.targets, replaces=False)


def _most_missing(store: Store, probes: int | None) -> int:
    """Return the number of probes to compute, or a larger one if all are drawn again or the store has grown."""
    missing = store.curvature_state(probes).missing
    none = CurvatureState.of_none(probes, store.count(), store.settings.probe_shape)
    return missing or none.missing
