"""What a method gives to the training loop, and how it is built by the method's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from sbr_core.methods import REGISTRY, imported
from sbr_core.nn.registrar import Registrar, build_registrar, registrar_architecture
from sbr_core.training.pairs import FiledPairs, Pairs

if TYPE_CHECKING:
    from sbr_core.config import PairOptions


@dataclass(frozen=True)
class Player:
    """Networks that learn at one pace.

    Attributes
    ----------
    modules : their names in the task; their gradient is clipped as one.
    rate_factor : times the learning rate of the options.
    starts_at : share of the training, in [0, 1), before which they stay as they are.
    """

    modules: tuple[str, ...]
    rate_factor: float = 1.0
    starts_at: float = 0.0


class Task(Protocol):
    """What a method gives to the loop.

    Adversaries are players of one task: the loss is the sum of what each of them minimises, and
    each part has a gradient for its own player only (`adversarial`).

    Attributes
    ----------
    name : for messages.
    modules : the networks that are trained, by name; all of their parameters.
    players : how they learn; may be left out where all of them learn as one.
    registrar : one that it calls whether it is trained or not; may be left out.
    watched : name of the loss that shows whether training works; may be left out: ``loss``.
        With adversaries the sum shows nothing, since what one wins the other loses.
    done : share of the training that is done, in [0, 1): set by the loop before each step.
    read_ahead : a function that is given the random numbers as the next step will find them, and
        has read what that step will draw; may be left out.
    """

    name: str
    modules: dict[str, nn.Module]
    done: float

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Draw a batch with `rng` (CPU) and compute scalars; ``loss`` is the one minimised."""


def build_task(
    method: str, options: PairOptions, pairs: Pairs, shared_registrar: Registrar | None
) -> Task:
    """The networks of a method and what they learn, on the device of the pairs.

    The method's class (`sbr_core.methods`) is called with ``(registrar, pairs, options)`` and makes
    its other networks, on the device of the pairs.

    Parameters
    ----------
    options : of the method's section.
    shared_registrar : of methods that train through it or start at it; changed in place. A task
        that goes through it freezes it; one that starts at it trains it.
    """
    if shared_registrar is None:
        registrar = build_registrar(**registrar_architecture(options))
    else:
        registrar = shared_registrar.requires_grad_(True)
    task = imported(REGISTRY[method].task)(registrar.to(pairs.device), pairs, options)
    if isinstance(pairs, FiledPairs):
        task.read_ahead = pairs.read_ahead
    return task
