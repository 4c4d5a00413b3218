"""Which samples the next epoch shows: one small interface for every arm of notebook 06.

    sampler = Sampler(config, n, constants)   # constants: only where a pilot is read
    order = sampler.next_epoch(epoch)         # positions among the training samples
    sampler.observe(epoch, shown, correct, loss)

Every arm shows the same number of samples in every epoch, repeats counted, so that arms differ in
*which* samples they show and in nothing else. The randomness of an epoch is a function of
(order seed, epoch); all else that an arm remembers lies in `state`, plain tensors that a checkpoint
keeps. What is due, and when, is in `schedules`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from retention_lib import schedules
from retention_lib.config import LITERAL, PILOTED, SAMPLERS, RunConfig
from retention_lib.convention import retention_trace
from retention_lib.decay import fit_decay
from retention_lib.rundir import RunDir
from retention_lib.session import generator
from retention_lib.traces import Traces

#: How often the oracle shows a sample that is planted as needing repetition, in every epoch: where
#: half of the samples are shown per epoch, four times as often as uniform sampling does.
ORACLE_SHOWN = 2
#: Column of the sample table that only the oracle reads.
PLANTED = "planted_needs_repetition"
#: The "epoch" whose generator shuffles decay constants: beyond any run's last one.
_SHUFFLE = 100_000


def presentations(config: RunConfig, n: int) -> int:
    """Samples shown per epoch, repeats counted, of `n` training samples.

    Examples
    --------
    >>> presentations(RunConfig("cub", presentations=0.25), 100)
    25
    """
    return max(min(n, 2), round(config.presentations * n))  # batch norm needs two


class Sampler:
    """What one run's arm remembers, and what it shows next.

    Parameters
    ----------
    config : RunConfig
        `sampler`, `presentations`, `recall_threshold` and `order_seed` are read.
    n : int
        Training samples.
    constants : array, (sample,), optional
        Decay constants of the pilot [1 / epoch], in the order of the training samples; needed by
        `config.PILOTED`, refused by others.
    planted : array of bool, (sample,), optional
        Which samples need more repetition; read by the oracle only.

    Raises
    ------
    ValueError
        If constants or planted truth are missing, of another length or not positive, or if the
        oracle's repeats exceed what an epoch may show.

    Examples
    --------
    >>> sampler = Sampler(RunConfig("cub", presentations=0.5), n=8)
    >>> len(sampler.next_epoch(epoch=1).unique())
    4
    """

    def __init__(self, config: RunConfig, n: int, constants=None, planted=None):
        self.config, self.n, self.budget = config, n, presentations(config, n)
        self.name = config.sampler
        self.state = {"last": torch.zeros(n, dtype=torch.int64)}  # the warm-up has shown all
        if (constants is None) == (self.name in PILOTED):
            got = "none" if constants is None else "some"
            raise ValueError(f"the sampler {self.name!r} must have decay constants of a pilot "
                             f"only if it is one of {PILOTED}, got {got}")  # fmt: skip
        if constants is not None:
            self.state["constants"] = self._own(_checked(constants, n))
        self.state |= schedules.START.get(self.name, lambda n: {})(n)
        self.planted = self._planted(planted) if self.name == "oracle" else None

    def next_epoch(self, epoch: int) -> Tensor:
        """Positions of the samples that an epoch shows, in the order of their presentation.

        Returns
        -------
        Tensor of int64, (presentation,)
        """
        draw = generator(self.config.order_seed, epoch)
        if self.name == "uniform":
            order = torch.randperm(self.n, generator=draw)[: self.budget]
        elif self.name == "oracle":
            order = self._oracle(draw)
        elif self.name == "loss_proportional":
            chance = schedules.loss_chances(self.state)
            order = torch.multinomial(chance, self.budget, replacement=True, generator=draw)
        else:
            due, urgency = schedules.DUE[self.name](self.state, epoch, self.config.recall_threshold)
            order = due_first(due, urgency, self.budget, draw)
        assert len(order) == self.budget and 0 <= order.min() and order.max() < self.n, self.name
        return order

    def observe(self, epoch: int, shown: Tensor, correct: Tensor, loss: Tensor) -> None:
        """Learn what became of the samples shown.

        Parameters
        ----------
        epoch : int
            0: the clean pass after the head's warm-up, of all samples.
        shown : Tensor of int64, (sample,)
            Positions, each once.
        correct : Tensor of bool, loss : Tensor of float [nat], (sample,)
            At their last presentation in this epoch.
        """
        learn = schedules.LEARN.get(self.name)
        if learn is not None:
            threshold = self.config.recall_threshold
            learn(self.state, epoch, shown, correct, loss.double(), threshold)
        self.state["last"][shown] = epoch

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next epochs depend on besides the settings."""
        return {name: value.clone() for name, value in self.state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state_dict`; a ValueError if it is another sampler's."""
        told = {name: tuple(value.shape) for name, value in state.items()}
        wanted = {name: tuple(value.shape) for name, value in self.state.items()}
        if told != wanted:
            raise ValueError(f"state of the sampler {self.name!r} must hold {wanted}, got {told}")
        self.state = {name: value.clone() for name, value in state.items()}

    def _own(self, constants: Tensor) -> Tensor:
        if self.name != "spaced_shuffled":
            return constants
        draw = generator(self.config.order_seed, _SHUFFLE)
        return constants[torch.randperm(self.n, generator=draw)]

    def _planted(self, planted) -> Tensor:
        if planted is None or len(planted) != self.n:
            got = "none" if planted is None else f"{len(planted)}"
            raise ValueError(f"the oracle needs the column {PLANTED!r} of {self.n} training "
                             f"samples, got {got}: only a phantom made for it has one")  # fmt: skip
        rows = torch.from_numpy(np.flatnonzero(planted))
        if ORACLE_SHOWN * len(rows) > self.budget:
            raise ValueError(
                f"the oracle shows {len(rows)} samples {ORACLE_SHOWN} times each, more than the "
                f"{self.budget} presentations of an epoch"
            )
        return rows

    def _oracle(self, draw: torch.Generator) -> Tensor:
        often = self.planted.repeat(ORACLE_SHOWN)
        others = torch.ones(self.n, dtype=torch.bool)
        others[self.planted] = False
        rest = torch.randperm(int(others.sum()), generator=draw)[: self.budget - len(often)]
        order = torch.cat([often, others.nonzero().squeeze(1)[rest]])
        return order[torch.randperm(len(order), generator=draw)]


def due_first(due: Tensor, urgency: Tensor, budget: int, draw: torch.Generator) -> Tensor:
    """Fill an epoch: what is due, the most urgent first, then others at random; in random order.

    Parameters
    ----------
    due : Tensor of bool, (sample,)
    urgency : Tensor of float, (sample,)
        Larger comes first where more is due than fits; ties are broken at random.

    Returns
    -------
    Tensor of int64, (budget,)
        Without repeats.
    """
    lot = torch.randperm(len(due), generator=draw)
    rank = torch.where(due, urgency.double(), -torch.inf)[lot]
    chosen = lot[torch.argsort(rank, descending=True, stable=True)[:budget]]
    return chosen[torch.randperm(budget, generator=draw)]


def make_sampler(config: RunConfig, samples: pd.DataFrame, constants=None) -> Sampler:
    """The sampler of a run.

    Parameters
    ----------
    samples : DataFrame
        The sample table of both splits.
    constants : array, (training sample,), optional
        From `pilot_constants`.
    """
    train = samples[samples["split"] == "train"]
    planted = train[PLANTED].to_numpy(bool) if PLANTED in train else None
    return Sampler(config, len(train), constants, planted)


def pilot_constants(pilot: RunDir) -> np.ndarray:
    """Decay constants of a finished uniform run [1 / epoch], (training sample,).

    By the primary convention: exp(-lambda t) by least squares to raw correctness of the clean view
    from epoch 0 on, all samples. Six decimals of the logarithm are kept, so that equal traces tie
    and the solver's rounding does not order them.

    Raises
    ------
    ValueError
        If the run is not finished, or was not sampled uniformly.
    """
    if not pilot.is_done:
        raise ValueError(
            f"the pilot {pilot.folder.name} must be finished before a run that reads its decay "
            f"constants ({pilot.progress()}); study.capture_or_load trains it first"
        )
    traces = Traces.from_runs([pilot.folder])
    if traces.runs["sampler"].tolist() != ["uniform"]:
        raise ValueError(f"a pilot must be a uniform run, got {traces.runs['sampler'].iloc[0]!r}")
    r, mask = retention_trace(traces.correct(LITERAL.view), LITERAL)
    fitted = fit_decay(r, mask=mask, loss=LITERAL.loss).decay_constant[0]
    return np.exp(np.round(np.log(fitted), 6))


def constants_hash(constants: np.ndarray) -> str:
    """What a run's header says of the constants that it was given."""
    rounded = np.round(np.log(constants), 6) + 0.0  # no negative zero
    return hashlib.blake2b(rounded.astype("<f8").tobytes(), digest_size=8).hexdigest()


def _checked(constants, n: int) -> Tensor:
    constants = np.asarray(constants, float)
    if constants.shape != (n,) or not (np.isfinite(constants).all() and (constants > 0).all()):
        raise ValueError(
            f"decay constants must be {n} positive numbers, one per training sample, got shape "
            f"{constants.shape} with {(~(constants > 0)).sum()} that are not"
        )
    return torch.from_numpy(constants.copy())


assert set(SAMPLERS) == {"uniform", "oracle", "loss_proportional", *schedules.DUE}
