"""The shuffled projection: random shuffling and random projection of the formed gradient.

Each layer's per-sample gradient is formed block by block, normalised, shuffled and projected.

The map sends every coordinate of the flattened gradient v to one of K buckets with a random sign, and exactly
|v|/K coordinates to each bucket (Alg. 1 and Section 3.2 of Lin et al. 2024, where it is done with permuted copies
of v). Here bucket and sign are *computed* from the coordinate's index, so nothing of size |v| is ever held; only
hashes that thousands of coordinates share are kept, if they are few. Buckets and signs depend on integers alone,
so they are equal for every machine, device and batch size. Definition, version 1:

The flattened gradient has two parts, one of matrices (tensors of two or more dimensions) and one of vectors
(norms, biases). Each part is filled up with zeros to a multiple of K. The coordinates of a part are taken in
chunks of c neighbours, where c = max(1, min(64, K/64)) for matrices and 1 for vectors; each tensor starts a new
chunk.
With A = K/c and m = |part|/K, a part has A·m chunks. The chunk of index q is treated as follows:

* Shuffling: (r, s) = (q mod A, q div A), then λ rounds that alternate
  r ← (r + hash_j(s)) mod A   and   s ← (s + hash_j(r)) mod m.
  Written as an A × m matrix, a round shifts every column (then every row) in a circle by its own random amount.
  These are the row and column permutations of Alg. 1, except that a keyed hash draws one for each column and row
  instead of one for all. Every round is a bijection, so λ rounds together are one, too.
* Bucket of element e of the chunk: (r·c + e + shift(s)) mod K, with a random shift(s) in [0, c).
  The A chunks that share s fill each of the K buckets exactly once. The shift makes any two elements of different
  chunks equally likely to meet in a bucket.
* Sign of element e: bit e of a 64-bit hash of q (the Rademacher vector ρ).

Two coordinates of one chunk never meet. Any other two meet with probability 1/K over the seeds, or never if their
part has m = 1. Signs are independent. Hence E⟨Ru, Rv⟩ = ⟨u, v⟩ with the variance of a fixed-size-bin count sketch
(OPORP, Li & Li 2023).

Vectors are a part of their own because a few thousand of their coordinates hold a good share of a normalised
gradient. In chunks among those of the matrices they would collide 64 at a time or not at all, and the noise of one
seed could be several per cent above theory. In a part of their own they need m stripes for K·m coordinates, which
is usually one stripe.

Shape letters: b batch · r rows · n chunks · c chunk length · K projection dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rapidin.attribution.gradients import Normalisation, ParameterGradient, scale, squares_for
from rapidin.attribution.integer_hashes import WORD, hash32
from rapidin.attribution.projections.hashing import make_keys
from rapidin.attribution.projections.limits import too_large
from rapidin.settings import ProjectionSettings
from rapidin.support import WorkingMemory

_LARGEST_CHUNK = 64
_MOST_TABULATED = 1 << 24
"""Maximum number of hashes of rows and stripes that are kept, at four bytes each.

If there are more, every round computes them again. With the default settings a model of seven billion parameters
needs a million.
"""

_BLOCK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Number of gradient elements that are formed at a time (32 or 512 MiB in float32), unless one row needs more.

On a CPU the number is a compromise between its caches and the number of calls. On a GPU it is large enough that
starting some three hundred kernels does not matter.
"""

_CHUNKS_AT_ONCE = 1 << 19
_ELEMENTS_AT_ONCE = 1 << 23
"""Maximum numbers of chunks, and of elements of a batch, that a CPU maps together.

They bound the memory of `Part.add`. Each group costs 64 calls, however small it is.
"""


class ShuffledProjection:
    """The map of one store, for parameter tensors of the given shapes.

    Args:
        settings: settings with K, λ and the seed.
        shapes: shape of each parameter tensor, in the order of the flattened gradient.

    Raises:
        SettingError: K is larger than the gradient.

    Attributes:
        dimension: projection dimension K.
        tensors: place of each parameter tensor's coordinates.
        length: length of v with its padding, a multiple of K.
    """

    def __init__(self, settings: ProjectionSettings, shapes: Sequence[tuple[int, ...]]) -> None:
        self.dimension = settings.dimension
        total = sum(math.prod(shape) for shape in shapes)
        if self.dimension > total:
            raise too_large(settings, total)
        largest_chunk = max(1, min(_LARGEST_CHUNK, self.dimension // 64))
        matrices, vectors = Part(settings, "matrices", largest_chunk), Part(settings, "vectors", 1)
        self.tensors: list[Placement] = []
        for shape in shapes:
            part = matrices if len(shape) > 1 else vectors
            self.tensors.append(Placement(part, part.reserve(math.prod(shape))))
        self.length = matrices.length + vectors.length
        self._margin = largest_chunk

    @classmethod
    def suits(
        cls,
        settings: ProjectionSettings,  # noqa: ARG003 - the protocol's
        shapes: Sequence[tuple[int, ...]],  # noqa: ARG003
        normalise_layers: bool,  # noqa: ARG003
    ) -> bool:
        """See `Projection.suits`; this kind suits every store."""
        return True

    def sketches(self, batch: int, normalisation: Normalisation, memory: WorkingMemory) -> ShuffledSketches:
        """See `Projection.sketches`."""
        return ShuffledSketches(batch, self, normalisation, memory)

    def share(self, position: int) -> slice:  # noqa: ARG002 - the protocol's
        """See `Projection.share`; every tensor can change every number."""
        return slice(0, self.dimension)

    def new_sketch(self, batch: int, device: torch.device | str) -> Tensor:
        """Make an empty sketch, float32 [b, K + c]; `finish` adds the c extra buckets to the first c ones."""
        return torch.zeros(batch, self.dimension + self._margin, dtype=torch.float32, device=device)

    def restored(self, vector: Tensor, position: int, size: int) -> Tensor:
        """See `Projection.restored`."""
        part, first = self.tensors[position].part, self.tensors[position].first
        chunks = torch.arange(first, first + math.ceil(size / part.chunk), device=vector.device)
        pieces = []
        for numbers in chunks.split(_CHUNKS_AT_ONCE):
            block, shift, signs = part.places(numbers)
            buckets = (block * part.chunk + shift).unsqueeze(1) + torch.arange(part.chunk, device=vector.device)
            pieces.append((vector[buckets % self.dimension] * signs).flatten())
        return torch.cat(pieces)[:size]

    def finish(self, sketch: Tensor) -> Tensor:
        """Turn a sketch into the projection, float32 [b, K]; the sketch's memory is reused."""
        sketch[:, : self._margin] += sketch[:, self.dimension :]
        return sketch[:, : self.dimension]


class ShuffledSketches:
    """Accumulator that normalises and projects every parameter's gradients as they come.

    Args:
        batch: number of samples b.
        projection: the store's map.
        normalisation: normalisation of each layer's gradient.
        memory: memory that gradients are formed in, kept from batch to batch.
    """

    def __init__(
        self, batch: int, projection: ShuffledProjection, normalisation: Normalisation, memory: WorkingMemory
    ) -> None:
        self._batch = batch
        self._projection = projection
        self._normalisation = normalisation
        self._memory = memory
        self._sketches: dict[torch.device, Tensor] = {}

    def consume(self, gradient: ParameterGradient) -> None:
        """Project one parameter's gradients and add them to the samples' sketches."""
        projection = self._projection
        sketch = self._sketches.get(gradient.device)
        if sketch is None:
            sketch = self._sketches[gradient.device] = projection.new_sketch(self._batch, gradient.device)
        part = projection.tensors[gradient.position].part
        blocks = self._blocks(gradient, part.chunk)
        if len(blocks) == 1:
            chunks, values = self._formed(gradient, blocks[0])
            scale(self._normalisation, gradient.position, values, squares_for(self._normalisation, values))
            part.add(sketch, chunks, values)
            return
        # The gradient is too large to form at once: its blocks are projected one by one, and the sum of their
        # projections is normalised, which gives the same, because the projection is linear.
        unscaled = projection.new_sketch(self._batch, gradient.device)
        squares = torch.zeros(self._batch, dtype=torch.float64, device=gradient.device)
        for block in blocks:
            chunks, values = self._formed(gradient, block)
            squares += squares_for(self._normalisation, values)
            part.add(unscaled, chunks, values)
        scale(self._normalisation, gradient.position, unscaled, squares)
        sketch += unscaled

    def result(self) -> Tensor:
        """Return the projections, float32 [b, K], on the device of the last layers."""
        sketches = list(self._sketches.values()) or [self._projection.new_sketch(self._batch, "cpu")]
        first, *others = (self._projection.finish(sketch) for sketch in sketches)
        for other in others:
            first += other.to(first.device)
        return first

    def _blocks(self, gradient: ParameterGradient, chunk: int) -> list[range | Tensor]:
        """Divide a gradient's rows into blocks of bounded size: ranges, or occupied rows of a sparse gradient."""
        most = _BLOCK_ELEMENTS.get(gradient.device.type, _BLOCK_ELEMENTS["cpu"])
        fitting = most // (gradient.batch * gradient.columns)
        if gradient.columns % chunk == 0 and (occupied := gradient.occupied_rows()) is not None:
            return list(occupied.split(max(fitting, 1)))
        # Blocks of a multiple of `step` rows begin with a new chunk.
        step = chunk // math.gcd(gradient.columns, chunk)
        rows = max(fitting // step * step, step)
        return [range(first, min(first + rows, gradient.rows)) for first in range(0, gradient.rows, rows)]

    def _formed(self, gradient: ParameterGradient, block: range | Tensor) -> tuple[Tensor, Tensor]:
        """Form a block of a gradient.

        Args:
            gradient: the parameter's gradients.
            block: rows of the block, from `_blocks`.

        Returns:
            Indices of chunks in the part, int64 [n], and their values, float32 [b, n, c].
        """
        placement = self._projection.tensors[gradient.position]
        length, first = placement.part.chunk, placement.first
        if isinstance(block, Tensor):
            per_row = gradient.columns // length
            within = torch.arange(per_row, device=block.device)
            chunks = (first + block[:, None] * per_row + within).flatten()
            return chunks, gradient.chosen_rows(block).view(self._batch, -1, length)
        flat = gradient.block(block.start, len(block), self._memory).flatten(1)
        missing = -flat.shape[1] % length
        if missing:  # the tensor's last chunk is filled up with zeros
            flat = nn.functional.pad(flat, (0, missing))
        values = flat.view(self._batch, -1, length)
        first += block.start * gradient.columns // length
        return torch.arange(first, first + values.shape[1], device=values.device), values


class Part:
    """The map of the coordinates of all matrices, or of all vectors; one thread at a time may call `add`.

    Args:
        settings: settings with K, λ and the seed.
        name: name of the part, which its keys depend on.
        chunk: chunk length c.

    Attributes:
        chunk: chunk length c, the number of neighbouring coordinates that stay together.
    """

    def __init__(self, settings: ProjectionSettings, name: str, chunk: int) -> None:
        self.chunk = chunk
        self._dimension = settings.dimension
        self._blocks = settings.dimension // chunk
        self._chunks = 0
        self._keys = make_keys(settings, name, settings.shuffles + 5, settings.shuffles)
        self._shuffles = settings.shuffles
        self._tables: dict[torch.device, _Tables] = {}
        self._memory = WorkingMemory()

    def reserve(self, size: int) -> int:
        """Reserve a place behind the other tensors for one of `size` elements; return its first chunk's index."""
        first = self._chunks
        self._chunks += math.ceil(size / self.chunk)
        return first

    @property
    def stripes(self) -> int:
        """Number m of coordinates that each bucket gets."""
        return math.ceil(self._chunks / self._blocks)

    @property
    def length(self) -> int:
        """Number of coordinates with padding, a multiple of K."""
        return self.stripes * self._dimension

    def places(self, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute where chunks go.

        Args:
            chunks: indices of chunks, int64 [n].

        Returns:
            The block of each chunk, int64 [n] in [0, K/c); its shift, int64 [n] in [0, c); and the signs of its
            elements, float32 [n, c] of −1 and 1. Element e of a chunk goes to bucket (block·c + e + shift) mod K.
        """
        return *self._targets(chunks), torch.where(self._sign_bits(chunks) < 0, -1.0, 1.0).float()

    def _targets(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """Compute block and shift, see `places`."""
        tables = self._tables_on(chunks.device)
        row = chunks & (self._blocks - 1)
        stripe = chunks >> (self._blocks.bit_length() - 1)
        if tables is not None:
            row, stripe = row.int(), stripe.int()  # torch computes far faster with int32
        for number in self._rounds:
            index = row if number % 2 else stripe
            moves = self._moves(number, index) if tables is None else tables.moves[number].index_select(0, index)
            if number % 2 == 0:
                row += moves
                row &= self._blocks - 1
            else:
                stripe += moves
                stripe -= (stripe >= self.stripes).to(stripe.dtype).mul_(self.stripes)
        shift = self._shifts(stripe) if tables is None else tables.shifts.index_select(0, stripe)
        return row.long(), shift

    @property
    def _rounds(self) -> Sequence[int]:
        """Numbers of the shuffling rounds; odd rounds move stripes, so they are left out if there is only one."""
        return range(0, self._shuffles, 2 if self.stripes == 1 else 1)

    def _moves(self, number: int, index: Tensor) -> Tensor:
        """Compute how far a round moves rows (an even round, by stripe) or stripes (an odd round, by row)."""
        hashes = hash32(index, self._keys[number])
        # (hash · m) >> 32 spreads a 32-bit hash evenly over [0, m) without a division.
        return hashes * self.stripes >> 32 if number % 2 else hashes & (self._blocks - 1)

    def _shifts(self, stripe: Tensor) -> Tensor:
        """Compute the shift of chunks from their stripe, int64 in [0, c)."""
        return hash32(stripe, self._keys[self._shuffles]) & (self.chunk - 1)

    def _tables_on(self, device: torch.device) -> _Tables | None:
        """Return the hashes of all rows and stripes, made once for each device; None if there are too many."""
        sizes = {number: self._blocks if number % 2 else self.stripes for number in self._rounds}
        if sum(sizes.values()) > _MOST_TABULATED:
            return None
        if device not in self._tables:
            moves = {
                number: self._moves(number, torch.arange(size, device=device)).int()
                for number, size in sizes.items()
            }
            self._tables[device] = _Tables(moves, self._shifts(torch.arange(self.stripes, device=device)))
        return self._tables[device]

    def _sign_bits(self, chunks: Tensor) -> Tensor:
        """Compute int32 [n, c] whose highest bit is set where an element's sign is −1; all other bits are 0."""
        low, high = chunks & WORD, chunks >> 32
        width = min(self.chunk, 32)
        places = torch.arange(31, 31 - width, -1, dtype=torch.int32, device=chunks.device)
        words = []
        for word in range(math.ceil(self.chunk / 32)):
            first, second = self._keys[self._shuffles + 1 + 2 * word : self._shuffles + 3 + 2 * word]
            bits = hash32(hash32(low, first) ^ high, second)
            words.append(bits.bitwise_not_().int().unsqueeze(1) << places)
        return torch.cat(words, dim=1).bitwise_and_(-(1 << 31))

    def add(self, sketch: Tensor, chunks: Tensor, values: Tensor) -> None:
        """Add the projection of some chunks of each sample's gradient to a sketch.

        Args:
            sketch: sketch from `ShuffledProjection.new_sketch`, float32 [b, K + c]; changed in place.
            chunks: indices of the chunks in the part, int64 [n].
            values: coordinates, float32 [b, n, c]; may be overwritten.
        """
        if sketch.is_cuda:
            self._add_by_element(sketch, chunks, values)
        else:
            self._add_by_shift(sketch, chunks, values)

    def _add_by_element(self, sketch: Tensor, chunks: Tensor, values: Tensor) -> None:
        """Add everything at once, because a GPU is fastest with few large kernels."""
        block, shift = self._targets(chunks)
        self._apply_signs(chunks, values)
        first = (block * self.chunk + shift).unsqueeze(1)
        buckets = first + torch.arange(self.chunk, device=chunks.device)
        # Neighbours in a chunk are neighbours in the sketch, so the atomic additions coalesce.
        sketch.index_add_(1, buckets.flatten(), values.flatten(1))

    def _add_by_shift(self, sketch: Tensor, chunks: Tensor, values: Tensor) -> None:
        """Add chunk by chunk, because a CPU is fastest with contiguous rows."""
        # There is one view [b, K/c, c] for every shift. All are made in few calls, because this runs for many
        # blocks.
        shifted = sketch.unfold(1, self._dimension, 1)[:, : self.chunk]
        views = shifted.unflatten(2, (self._blocks, self.chunk)).unbind(1)
        at_once = max(1, min(_ELEMENTS_AT_ONCE // (len(values) * self.chunk), _CHUNKS_AT_ONCE))
        for numbers, piece in zip(chunks.split(at_once), values.split(at_once, dim=1), strict=True):
            block, shift = self._targets(numbers)
            # Chunks of one shift are added together, because then each is one of the K/c rows of a view. NumPy is
            # used because it sorts bytes by counting.
            order = torch.from_numpy(np.argsort(shift.to(torch.uint8).numpy(), kind="stable"))
            counts = torch.bincount(shift, minlength=self.chunk).tolist()
            self._apply_signs(numbers, piece)
            in_order = self._rows_in_order(piece, order).split(counts, dim=1)
            for rows, index, added in zip(views, block[order].split(counts), in_order, strict=True):
                rows.index_add_(1, index, added)

    def _rows_in_order(self, values: Tensor, order: Tensor) -> Tensor:
        """Copy chunks of [b, n, c] in a given order into working memory; one sample at a time uses all threads."""
        rows = self._memory.room(values.shape, values.device)
        for source, target in zip(values, rows, strict=True):
            torch.index_select(source, 0, order, out=target)
        return rows

    def _apply_signs(self, chunks: Tensor, values: Tensor) -> None:
        """Multiply values [b, n, c] by the signs of chunks [n] in place; a float's highest bit is its sign."""
        values.view(torch.int32).bitwise_xor_(self._sign_bits(chunks))


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a parameter tensor's coordinates.

    Attributes:
        part: part of the gradient that the tensor belongs to.
        first: index of the tensor's first chunk in the part.
    """

    part: Part
    first: int


@dataclass(frozen=True, slots=True)
class _Tables:
    """Hashes of a part's rows and stripes on one device, a small fraction of its coordinates.

    Attributes:
        moves: number of a round → distances by which it moves rows, one for each stripe, int32 [m], or stripes,
            one for each row, int32 [A].
        shifts: shift of every stripe, int64 [m].
    """

    moves: dict[int, Tensor]
    shifts: Tensor
