"""The states of one model whose gradients are compared: its checkpoints, or the model as it is.

The weights of one state at a time are in the module. Attribution does not know where weights come from; see
`rapidin.model` for checkpoints in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class ModelStates(Protocol):
    """States of one module.

    Attributes:
        names: name of each state, for messages.
        shares: weight of each state in a score; they add up to 1.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def place(self, number: int) -> None:
        """Put the weights of a state into the module.

        Raises:
            ModelError: the weights cannot be read.
        """

    def restore(self) -> None:
        """Put the weights of the final model into the module, unless they are there.

        Raises:
            ModelError: the weights cannot be read.
        """


class OneState:
    """The only state of a model without checkpoints."""

    names: tuple[str, ...] = ("",)
    shares: tuple[float, ...] = (1.0,)

    def place(self, number: int) -> None:
        """See `ModelStates.place`; the weights are in place."""

    def restore(self) -> None:
        """See `ModelStates.restore`; the weights are in place."""


ONE_STATE: ModelStates = OneState()


@contextmanager
def visiting(states: ModelStates) -> Iterator[Callable[[int], None]]:
    """Give the function that puts a state's weights in place; the final model's are put back at the end."""
    try:
        yield states.place
    finally:
        states.restore()
