"""Nulls for traces: redraws that keep every epoch's accuracy and every sample's total.

"Some epochs are worse, some samples are harder" is the Rasch model, logit P(correct) = sample +
epoch. Given the row and column sums of the epoch x sample matrix, all 0/1 matrices with these sums
are equally probable under it, whatever its parameters; so what a statistic does over uniform
redraws of that set is an exact conditional test of the Rasch model (Chen & Small 2005).

Redraws come from curveball trades. For two epochs, the samples that exactly one of them has correct
are pooled and dealt anew, each epoch getting as many as it had. A sweep pairs the epochs at random
and trades within all pairs at once.

*Uniform.* A trade's outcome is uniform over a set of arrangements that is the same whichever of
them one starts from. Hence a sweep leads from X to Y as often as from Y to X, and the uniform
distribution is kept. A swap of one 2 x 2 checkerboard is a possible outcome of a trade, and such
swaps connect all matrices with the same margins (Ryser 1957); staying put is possible too, so the
chain converges to the uniform distribution (Carstens 2015).

*Exact at any length.* From the observed matrix the chain walks `sweeps` sweeps to a hub, and every
redraw walks `sweeps` sweeps from that hub on its own. As the chain is reversible, under the
hypothesis the observed matrix is one more walk from the hub: p = (b + 1) / (m + 1) is valid however
badly the chain mixes (Besag & Clifford 1989). Too few sweeps cost power and shift the null's mean
towards the observed value; they never make the test too liberal.

References
----------
Strona et al. (2014), Nature Communications 5, 4114 (curveball). Carstens (2015), Physical Review E
91, 042812. Godard & Neal (2022), Journal of Complex Networks 10, cnac049 (fastball). Verhelst
(2008), Psychometrika 73, 705-728. Chen & Small (2005), Psychometrika 70, 11-30. Besag & Clifford
(1989), Biometrika 76, 633-642. Ryser (1957), Canadian Journal of Mathematics 9, 371-377.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Sweeps from the observed matrix to the hub, and again from there to each redraw. Per sweep the
#: number of events and the variance of the samples' mean epochs come nearer to the null's mean by a
#: factor of 0.4 to 0.75 on recorded traces and most simulated ones, 0.8 on the slowest (31 epochs
#: that decay to nothing): 20 sweeps leave 1 % of the distance even there.
SWEEPS = 10

#: Entries redrawn at once. Larger batches leave the cache, smaller ones pay for numpy's calls.
BATCH = 100_000


def redraws(
    correct: np.ndarray,
    rng: np.random.Generator,
    draws: int,
    sweeps: int = SWEEPS,
    chains: int | None = None,
) -> Iterator[np.ndarray]:
    """Batches of uniform redraws of one run's matrix with its row and column sums.

    Parameters
    ----------
    correct : bool or 0/1 integers, (epoch, sample)
    rng : Generator
    draws : int
        Redraws in all.
    sweeps : int
        Random pairings of the epochs from the observed matrix to the hub, and from the hub to each
        redraw (see the module's text).
    chains : int, optional
        Redraws per batch; by default as many as fit the processor's cache.

    Yields
    ------
    bool, (draw, epoch, sample)
        Their first axes sum to `draws`. Samples correct always or never stay as they are, so a
        matrix in which nothing was ever forgotten has no redraw but itself.

    Raises
    ------
    ValueError
        On a shape or values that are not one run's correctness, and on counts below 1.

    Examples
    --------
    >>> x = np.array([[1, 0, 1], [0, 1, 1]])
    >>> batch = next(redraws(x, np.random.default_rng(0), 5))
    >>> batch.shape, bool((batch.sum(1) == x.sum(0)).all()), bool((batch.sum(2) == x.sum(1)).all())
    ((5, 2, 3), True, True)
    """
    correct = as_bool(correct, dims=(2,))
    for name, value in (("draws", draws), ("sweeps", sweeps), ("chains", chains)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    free = correct.any(0) & ~correct.all(0)
    hub = np.ascontiguousarray(correct[:, free])[None]
    if chains is None:
        chains = max(1, BATCH // max(1, hub.size))
    for _ in range(sweeps):
        _sweep(hub, rng)
    for start in range(0, draws, chains):
        states = np.repeat(hub, min(chains, draws - start), axis=0)
        for _ in range(sweeps):
            _sweep(states, rng)
        out = np.repeat(correct[None], len(states), axis=0)
        out[:, :, free] = states
        yield out


def _sweep(states: np.ndarray, rng: np.random.Generator) -> None:
    """Pair each chain's epochs at random and trade within every pair; in place.

    `states` is (chain, epoch, sample). With an odd number of epochs one of them sits out.
    """
    n_chains, n_epochs, _ = states.shape
    half = n_epochs // 2
    order = np.argsort(rng.random((n_chains, n_epochs)), axis=1)
    chain, first, second = np.arange(n_chains)[:, None], order[:, :half], order[:, half : 2 * half]
    a, b = states[chain, first], states[chain, second]  # (chain, pair, sample)
    pool = a ^ b
    at = np.flatnonzero(pool)
    size, own = (np.count_nonzero(x, axis=-1).ravel() for x in (pool, pool & a))
    dealt = _choose(size, own, rng)
    a.reshape(-1)[at], b.reshape(-1)[at] = dealt, ~dealt
    states[chain, first], states[chain, second] = a, b


def _choose(size: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniform subset of `wanted[k]` members of each pool k, the pools lying end to end.

    Every member draws one of up to 256 lots. A pool's lowest lots are chosen whole, as many as it
    can take, and of the next lot as many members as are still wanted, in random order: the same as
    to sort all members by a random number, at half the cost.
    """
    pools = np.arange(len(size))
    pool = np.repeat(pools, size)
    if len(pool) == 0:
        return np.zeros(0, bool)
    bits = min(8, max(0, int(np.mean(size)).bit_length() - 3))  # a few members to a lot
    cell = pool << bits
    cell |= rng.integers(0, 2**bits, len(pool), dtype=np.uint8)
    below = np.zeros((len(size), 2**bits + 1), np.int64)  # members whose lot is less than this
    counts = np.bincount(cell, minlength=len(size) << bits).reshape(len(size), -1)
    np.cumsum(counts, axis=1, out=below[:, 1:])
    whole = (below[:, 1:] <= wanted[:, None]).sum(1)
    edge = np.repeat((pools << bits) + whole, size)
    chosen = cell < edge
    split = np.flatnonzero(cell == edge)
    split = split[np.lexsort((rng.random(len(split)), pool[split]))]
    home = pool[split]
    rank = np.arange(len(split)) - np.searchsorted(home, home)
    chosen[split[rank < (wanted - below[pools, whole])[home]]] = True
    return chosen


def shuffle_epochs(correct: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Time-shuffled control: every trace's epochs permuted, independently of the other traces.

    Keeps each sample's total and nothing of the epochs, `correct` being (..., epoch, sample).

    Examples
    --------
    >>> shuffle_epochs(np.eye(3, dtype=bool), np.random.default_rng(0)).sum(0).tolist()
    [1, 1, 1]
    """
    correct = np.asanyarray(correct)
    if correct.ndim < 2:
        raise ValueError(f"correct must be (..., epoch, sample), got shape {correct.shape}")
    return rng.permuted(correct, axis=-2)


def as_bool(correct: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """Correctness as bool, of as many dimensions as `dims` allows, or a ValueError."""
    correct = np.asarray(correct)
    if correct.ndim not in dims or correct.size == 0:
        axes = " or ".join({2: "(epoch, sample)", 3: "(run, epoch, sample)"}[d] for d in dims)
        raise ValueError(f"correct must be {axes} and not empty, got shape {correct.shape}")
    if correct.dtype != bool and not np.isin(correct, (0, 1)).all():
        raise ValueError(f"correct must be 0 or 1, got {correct.min()}..{correct.max()}")
    return correct.astype(bool)
