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

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from retention_lib.intervals import check_level, one_row, permutation_p

#: Sweeps from the observed matrix to the hub, and again from there to each redraw. Per sweep the
#: number of events and the variance of the samples' mean epochs come nearer to the null's mean by a
#: factor of 0.4 to 0.75 on recorded traces and most simulated ones, 0.8 on the slowest (31 epochs
#: that decay to nothing): 20 sweeps leave 1 % of the distance even there.
SWEEPS = 10

#: Entries redrawn at once. Larger batches leave the cache, smaller ones pay for numpy's calls.
_BATCH = 100_000


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
    correct = _as_bool(correct, dims=(2,))
    for name, value in (("draws", draws), ("sweeps", sweeps), ("chains", chains)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    free = correct.any(0) & ~correct.all(0)
    hub = np.ascontiguousarray(correct[:, free])[None]
    if chains is None:
        chains = max(1, _BATCH // max(1, hub.size))
    for _ in range(sweeps):
        _sweep(hub, rng)
    for start in range(0, draws, chains):
        states = np.repeat(hub, min(chains, draws - start), axis=0)
        for _ in range(sweeps):
            _sweep(states, rng)
        out = np.repeat(correct[None], len(states), axis=0)
        out[:, :, free] = states
        yield out


def curveball(
    correct: np.ndarray, rng: np.random.Generator, draws: int, sweeps: int = SWEEPS
) -> Iterator[np.ndarray]:
    """`redraws` one by one: bool (epoch, sample) with the row and column sums of `correct`.

    Examples
    --------
    >>> next(curveball(np.eye(3, dtype=bool), np.random.default_rng(0), 1)).sum(0).tolist()
    [1, 1, 1]
    """
    for batch in redraws(correct, rng, draws, sweeps):
        yield from batch


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


def margin_test(
    statistic: Callable[[np.ndarray], np.ndarray | dict[str, np.ndarray]],
    correct: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1999,
    alternative: str = "two-sided",
    sweeps: int = SWEEPS,
    level: float = 0.95,
) -> pd.DataFrame:
    """Does a statistic exceed what epoch accuracies and sample totals imply? Exact, conditional.

    Parameters
    ----------
    statistic : callable
        Takes correctness with a leading axis of draws, (draw, epoch, sample) or (draw, run, epoch,
        sample), and returns (draw,), or a dict of such arrays that share the redraws.
    correct : bool or 0/1 integers, (epoch, sample) or (run, epoch, sample)
        Several runs are redrawn independently, each within its own margins.
    rng : Generator
    draws, sweeps : int
        As in `redraws`.
    alternative : {"greater", "less", "two-sided"}
    level : float
        Of the null's quantiles.

    Returns
    -------
    DataFrame
        One row, or one per key with the column `quantity`. `estimate` is the observed statistic,
        without an interval (NaN); `p` by (b + 1) / (draws + 1), b redraws being as extreme; extras
        `null_mean`, `null_sd`, `null_low`, `null_high`, `draws`, `sweeps` and `free`, the samples
        that are neither always nor never correct in some run: the others cannot vary. A statistic
        that is NaN in any redraw has p and null NaN.

    Raises
    ------
    ValueError
        As `redraws`, and if the statistic does not return one number per draw.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((8, 30)) < np.linspace(0.9, 0.3, 8)[:, None]
    >>> row = margin_test(lambda c: (c[:, :-1] & ~c[:, 1:]).sum((1, 2)), x,
    ...                   np.random.default_rng(1), draws=99)
    >>> bool(row.p[0] > 0.05)
    True
    """
    check_level(level)
    correct = _as_bool(correct, dims=(2, 3))
    observed, many = _evaluate(statistic, correct[None])
    runs = correct[None] if correct.ndim == 2 else correct
    chains = max(1, _BATCH // max(1, correct.size))
    walks = [redraws(run, rng, draws, sweeps, chains) for run in runs]
    values: dict[str, list] = {key: [] for key in observed}
    for batch in zip(*walks, strict=True):
        together = batch[0] if correct.ndim == 2 else np.stack(batch, axis=1)
        for key, value in _evaluate(statistic, together)[0].items():
            values[key].append(value)
    free = int((runs.any(1) & ~runs.all(1)).any(0).sum())
    method = f"redraws within epoch and sample totals, {draws} draws, {alternative}"
    rows = []
    for key, parts in values.items():
        null, found = np.concatenate(parts), float(observed[key][0])
        low, high = np.quantile(null, [(1 - level) / 2, (1 + level) / 2])
        extras = {"null_mean": null.mean(), "null_sd": null.std(ddof=1) if draws > 1 else np.nan}
        extras |= {"null_low": low, "null_high": high}
        extras |= {"draws": draws, "sweeps": sweeps, "free": free}
        p = permutation_p(found, null, alternative)
        row = one_row(found, np.nan, np.nan, correct.shape[-1], p, method, **extras)
        if many:
            row.insert(0, "quantity", key)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


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


def _evaluate(statistic: Callable, states: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
    """The statistic as a dict of float arrays (draw,), and whether it came as a dict."""
    value = statistic(states)
    many = isinstance(value, dict)
    out = {k: np.asarray(v, float) for k, v in (value if many else {"": value}).items()}
    for array in out.values():
        if array.shape != (len(states),):
            raise ValueError(
                f"statistic must return one number per draw, shape ({len(states)},), "
                f"for an array of shape {states.shape}; got shape {array.shape}"
            )
    return out, many


def _as_bool(correct: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.ndim not in dims or correct.size == 0:
        axes = " or ".join({2: "(epoch, sample)", 3: "(run, epoch, sample)"}[d] for d in dims)
        raise ValueError(f"correct must be {axes} and not empty, got shape {correct.shape}")
    if correct.dtype != bool and not np.isin(correct, (0, 1)).all():
        raise ValueError(f"correct must be 0 or 1, got {correct.min()}..{correct.max()}")
    return correct.astype(bool)
