"""Derived data of kind ``curvature``: probes of a store's samples, which estimate the curvature of the loss.

A probe is a random vector whose second moment is the Gauss–Newton matrix of a sample's summed loss, projected like
a RapidGrad but not normalised (`rapidin.attribution.FisherDraw`). Searches correct their queries with the probes
(`rapidin.attribution.QueryCorrection`). Stored vectors never change.

The probes lie in one file. They are computed in steps, each of which doubles their number and replaces the file,
so that a build that was killed goes on with what was computed, and what there is can be used. Probes know samples
by id and content, so they stay where samples are moved by a compaction; probes of samples that were deleted or
replaced leave when the curvature is extended.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError, StoreCorruptError, StoreFormatError
from rapidin.settings import CURVATURE_DAMPING, CURVATURE_PROBES, DampingChoice, ProbeShape
from rapidin.storage.catalog import text_checksum
from rapidin.storage.derived import derived_records
from rapidin.storage.derived.curvature.probe_choice import MOST_DRAWS, ProbeRequest, choose_probes, located
from rapidin.storage.derived.curvature.probe_file import (
    BITS,
    FOLDER,
    ComputedProbes,
    ProbeArrays,
    StoredCurvature,
    bytes_of_probes,
)
from rapidin.storage.derived.derived_files import is_there
from rapidin.storage.derived.derived_kind import BuildStep, BuildWork, StoreFacts
from rapidin.storage.derived.derived_records import DerivedRecord, PartRecord

ComputeProbes = Callable[[Sequence[ProbeRequest]], Iterator[ComputedProbes]]
"""Function that computes probes, some at a time, in any order."""

GROWTH = 1.5
"""Number of samples, as a multiple of those when the probes were drawn, from which on new ones are advised."""

_FIRST_STEP = 256
_FORMAT = 1
_SEED = 0


@dataclass(frozen=True, slots=True)
class CurvatureOptions:
    """Options of the curvature.

    Attributes:
        probes: number of probes m; None: as many as it was built with, or `CURVATURE_PROBES`. There are at most
            `MOST_DRAWS` for each sample.
        damping: damping of all questions, or ``default``: that of `CURVATURE_DAMPING` for each question's
            objective. None: the damping that it was built with, or ``default``.
        compute: function that computes probes; None if none are missing.

    Raises:
        SettingError: on creation, a number cannot be used.
    """

    probes: int | None = None
    damping: DampingChoice | None = None
    compute: ComputeProbes | None = None

    def __post_init__(self) -> None:
        if self.probes is not None and self.probes < 1:
            raise SettingError(f"--probes {self.probes} cannot be used: give a positive number")
        if self.damping in (None, "default"):
            return
        if isinstance(self.damping, str) or not (math.isfinite(self.damping) and self.damping > 0):
            raise SettingError(f"--damping {self.damping} cannot be used: give a positive number, or 'default'")


@dataclass(frozen=True, slots=True)
class CurvatureState:
    """The curvature that a store has, and what it lacks.

    Attributes:
        probes: number of probes; 0 if there is no curvature that can be used.
        version: see `StoredCurvature`; None if there is no curvature that can be used.
        missing: number of probes to compute until there are as many as are wanted.
        missing_bytes: size by which computing them makes the store grow.
        advice: advice to the store's owner; None if there is nothing to be done.
    """

    probes: int
    version: str | None
    missing: int
    missing_bytes: int
    advice: str | None

    @classmethod
    def of_none(cls, wanted: int | None, samples: int, shape: ProbeShape) -> CurvatureState:
        """Return the state of a store that has no curvature.

        Args:
            wanted: number of probes wanted; None: `CURVATURE_PROBES`.
            samples: number of samples that probes can be drawn from.
            shape: shape of a probe.
        """
        missing = _number_of(wanted, samples)
        return cls(0, None, missing, bytes_of_probes(missing, shape), None)


class _CurvatureKind:
    """See `DerivedKind` for the methods."""

    name = "curvature"
    title = "curvature"
    folder = FOLDER
    suffixes = frozenset({".safetensors"})
    serves_searches = False
    follows_samples = True
    travels = True

    def command(self, store: Path) -> str:
        return f"rapidin curvature {store}"

    def remedy(self, store: Path) -> str:
        return f"compute it again with '{self.command(store)}'"

    def left_behind(self, target: Path) -> str:
        return f"the curvature is not in {target}: '{self.command(target)}' computes it, if {target} is a store"

    def check(self, store: StoreFacts, record: DerivedRecord) -> None:
        self._arrays(store, record, recheck=True)

    def check_part(self, store: StoreFacts, record: DerivedRecord, part: PartRecord) -> None:  # noqa: ARG002
        if part.file is not None:
            raise StoreCorruptError(
                f"{store.path}/store.db: a part of the curvature names a file; {self.remedy(store.path)}"
            )

    def advice(self, store: StoreFacts, record: DerivedRecord, covered: int, samples: int) -> str | None:  # noqa: ARG002
        told = self._told(store, record)
        wanted = _number_of(told["wanted"], told["samples"]) - told["unusable"]
        if told["probes"] < wanted:
            return f"{told['probes']:,} of {wanted:,} probes were computed: '{self.command(store.path)}' goes on"
        if samples >= GROWTH * told["samples"]:
            return (
                f"the probes were drawn when the store held {told['samples']:,} samples, and it holds "
                f"{samples:,}: '{self.command(store.path)}' draws those that are missing"
            )
        return None

    def settled(self, store: StoreFacts, existing: DerivedRecord | None, options: Any) -> CurvatureOptions:
        given = CurvatureOptions() if options is None else options
        before: dict[str, Any] = {"wanted": None, "damping": None}
        if existing is not None:
            before |= self._told(store, existing)
        return replace(
            given,
            probes=before["wanted"] if given.probes is None else given.probes,
            damping=(before["damping"] or "default") if given.damping is None else given.damping,
        )

    def build(
        self,
        work: BuildWork,
        existing: DerivedRecord | None,
        segment_ids: Sequence[int],
        known: Collection[int],  # noqa: ARG002
        options: CurvatureOptions,
    ) -> Iterator[BuildStep]:
        samples = len(work.rows)
        chosen = choose_probes(work.samples(), _number_of(options.probes, samples), _SEED)
        probes = ProbeArrays.none(work.store.probe_shape)
        if existing is not None:
            probes = self._arrays(work.store, existing)
        parts = [PartRecord(id, None, work.store.segments[id].rows) for id in segment_ids]
        there = set(probes.keys.tolist())
        missing = sum(one.key not in there for one in chosen)
        # A few unusable samples are tried again, which costs little and needs no list of them.
        steps = []
        size = max(_FIRST_STEP, 2 * len(there))
        while size < len(chosen):
            steps.append(size)
            size *= 2
        record, in_file, done, unusable = existing, len(there), 0, 0
        for size in [*steps, len(chosen)]:
            wanted = chosen[:size]
            now = [one for one in wanted if one.key not in there]
            if now:
                probes, failed = self._with_probes(work, probes, now, options.compute, done, missing)
                unusable += failed
                there.update(one.key for one in now)
                done += len(now)
            # Probes that only a later step wants are not lost, because there may be older ones among them.
            kept = probes.having(np.array([one.key for one in wanted], np.uint64))
            if not len(kept.keys):
                raise SettingError(
                    f"{work.store.path}: no sample gives a probe: the model is certain of every target token"
                )
            told = {
                "format": _FORMAT,
                "probes": len(kept.keys),
                "wanted": options.probes,
                "damping": None if options.damping == "default" else options.damping,
                "samples": samples,
                "tokens": int(kept.tokens.sum()),
                "unusable": unusable,
                "bits": BITS,
            }
            if record is not None and not now and len(kept.keys) == in_file:
                record = derived_records.with_parameters(record, json.dumps(told))
            else:
                file = kept.written(work.store, f"{uuid.uuid4().hex}.safetensors")
                record = derived_records.new_record(self.name, json.dumps(told), file)
                in_file = len(kept.keys)
            yield BuildStep(record, parts)
            parts = []

    def state(
        self, store: StoreFacts, record: DerivedRecord | None, wanted: int | None, samples: int, more_samples: int
    ) -> CurvatureState:
        """Tell what there is and what is missing, without reading a file.

        A curvature that is damaged counts as none, because a build computes it again.

        Args:
            store: the store.
            record: what the database says about the curvature; None if there is none.
            wanted: number of probes wanted; None: as many as it was built with, or `CURVATURE_PROBES`.
            samples: number of live samples.
            more_samples: number of samples that are about to be stored.
        """
        none = CurvatureState.of_none(wanted, samples + more_samples, store.probe_shape)
        if record is None or not record.intact:
            return none
        if record.file is None or not is_there(store.path / self.folder, record.file):
            return none
        try:
            told = self._told(store, record)
        except StoreCorruptError:
            return none
        except StoreFormatError as error:
            return CurvatureState(0, None, 0, 0, str(error))
        if wanted is None:
            # A store that has grown keeps its probes, because a change of them changes all scores.
            asked = _number_of(told["wanted"], told["samples"])
        else:
            asked = _number_of(wanted, samples + more_samples)
        there = told["probes"]
        missing = max(0, asked - told["unusable"] - there)
        before, after = (bytes_of_probes(count, store.probe_shape) for count in (there, there + missing))
        advice = self.advice(store, record, samples, samples)
        return CurvatureState(there, self.version(store, record), missing, after - before, advice)

    def load(self, store: StoreFacts, record: DerivedRecord) -> StoredCurvature:
        """Read the curvature for searches.

        Raises:
            StoreCorruptError: its file is missing or is not as it was written.
            StoreFormatError: a newer rapidin made it.
        """
        arrays = self._arrays(store, record)
        tokens = np.float32(arrays.tokens.sum())
        return StoredCurvature(
            version=self.version(store, record),
            damping=self._told(store, record)["damping"],
            keys=arrays.keys,
            scale=float(1 / np.sqrt(tokens)),
            codes=arrays.codes,
            scales=arrays.scales / np.sqrt(tokens),
            gram=arrays.gram / tokens,
        )

    def located(self, samples: Iterable[tuple[str, str]], keys: NDArray[np.uint64]) -> list[ProbeRequest | None]:
        """Find out what probes were drawn from, see `probe_choice.located`."""
        return located(samples, keys, _SEED)

    def version(self, store: StoreFacts, record: DerivedRecord) -> str:
        """Name the probes and the damping; equal names mean equal scores."""
        checksum = "" if record.file is None else record.file.checksum
        damping = self._told(store, record)["damping"]
        return text_checksum(json.dumps([checksum, CURVATURE_DAMPING if damping is None else damping]))

    def _with_probes(
        self,
        work: BuildWork,
        arrays: ProbeArrays,
        wanted: Sequence[ProbeRequest],
        compute: ComputeProbes | None,
        before: int,
        total: int,
    ) -> tuple[ProbeArrays, int]:
        """Compute probes and add them to those that there are.

        Args:
            work: what is built from.
            arrays: probes that there are.
            wanted: probes to compute.
            compute: function that computes them.
            before: number of probes computed before, for the progress.
            total: number of probes to compute altogether.

        Returns:
            All probes, and the number of those that cannot be used.
        """
        if compute is None:
            raise SettingError(
                f"{work.store.path}: {len(wanted):,} probes have to be computed, which needs the store's model: "
                f"run '{self.command(work.store.path)}'"
            )
        vectors = np.empty((len(wanted), work.store.probe_shape.dimension), np.float32)
        tokens = np.zeros(len(wanted), np.int64)
        done = 0
        for batch in compute(wanted):
            rows = list(batch.rows)
            vectors[rows], tokens[rows] = batch.vectors, batch.tokens
            done += len(rows)
            work.progress("probes", before + done, total)
        usable = np.flatnonzero(tokens)
        keys = np.array([one.key for one in wanted], np.uint64)[usable]
        return arrays.joined(keys, vectors[usable], tokens[usable]), len(wanted) - len(usable)

    def _arrays(self, store: StoreFacts, record: DerivedRecord, recheck: bool = False) -> ProbeArrays:
        remedy = self.remedy(store.path)
        if record.file is None:
            raise StoreCorruptError(f"{store.path}/store.db: the curvature names no file; {remedy}")
        told = self._told(store, record)
        return ProbeArrays.read(store, record.file, told["probes"], remedy, recheck)

    def _told(self, store: StoreFacts, record: DerivedRecord) -> dict[str, Any]:
        """Read and check the parameters of a record.

        Raises:
            StoreCorruptError: they are none.
            StoreFormatError: a newer rapidin wrote them.
        """
        damaged = StoreCorruptError(
            f"{store.path}/store.db: the row of the curvature was altered; {self.remedy(store.path)}"
        )
        try:
            told: dict[str, Any] = json.loads(record.parameters)
            newer = told["format"] > _FORMAT
            whole = all(isinstance(told[name], int) for name in ("probes", "samples", "tokens", "unusable"))
            whole = (
                whole
                and isinstance(told["damping"], float | int | None)
                and isinstance(told["wanted"], int | None)
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged from error
        if newer:
            raise StoreFormatError(f"{store.path}: a newer rapidin computed the curvature: upgrade rapidin")
        if not whole:
            raise damaged
        return told


def _number_of(asked: int | None, samples: int) -> int:
    """Return the number of probes for a number of samples."""
    return min(CURVATURE_PROBES if asked is None else asked, MOST_DRAWS * samples)


CURVATURE = _CurvatureKind()
