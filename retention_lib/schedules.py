"""When a sample is due again: the rules behind `samplers.Sampler`, one function each.

Time is counted in epochs; the delay d of a sample is the number of epochs since it was last shown
(the head's warm-up shows all, so that d = t at epoch t of a sample not shown since). Functions in
`DUE` take the state and return, for every sample, whether it is due and how urgently; those in
`LEARN` change the state by what was seen.

Static spaced repetition, worked by hand
----------------------------------------
Ten samples, four presentations an epoch, threshold 1/2, decay constants lambda / ln 2 of

    sample        0    1    2    3    4    5    6    7    8    9
    lambda / ln2  1.6  1.5  1.4  1.3  .9   .85  .6   .31  .15  .1

Predicted retention exp(-lambda d) is below 1/2 where lambda d / ln 2 > 1; the largest come first:

    epoch  lambda d / ln 2 of what is due                            shown       waits
    1      0: 1.6, 1: 1.5, 2: 1.4, 3: 1.3                            0 1 2 3
    2      4: 1.8, 5: 1.7, 0: 1.6, 1: 1.5, 2: 1.4, 3: 1.3, 6: 1.2    4 5 0 1     2 3 6
    3      2: 2.8, 3: 2.6, 6: 1.8, 0: 1.6, 1: 1.5                    2 3 6 0     1
    4      1: 3.0, 4: 1.8, 5: 1.7, 0: 1.6, 2: 1.4, 3: 1.3, 7: 1.24   1 4 5 0     2 3 7
    5      2: 2.8, 3: 2.6, 0: 1.6, 7: 1.55, 1: 1.5, 6: 1.2           2 3 0 7     1 6

Samples 8 and 9 are not due before epochs 7 and 11. Were fewer than four due, the rest of the
epoch would be drawn at random from those that are not.

References
----------
Settles & Meeder (2016), A Trainable Spaced Repetition Model for Language Learning, ACL. Amiri,
Miller & Savova (2017), Repeat before Forgetting: Spaced Repetition for Efficient and Effective
Training of Neural Networks, EMNLP. Leitner (1972), So lernt man lernen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Leitner's boxes wait 1, 2, 4, 8 and 16 epochs.
BOXES = 5
#: Share of loss-proportional draws that ignores the loss, so that a loss seen long ago and small
#: does not shut a sample out for ever.
UNIFORM_SHARE = 0.1
#: Half-lives that half-life regression may predict [epoch].
HALF_LIVES = (0.25, 64.0)
#: Observed recall is 0 or 1; kept away from both, or the observed half-life were 0 or infinite.
RECALLS = (0.05, 0.95)
#: Weight of the half-life in the loss (a tenth of theirs: of 0/1 recall the observed half-life is
#: short or long, and its square drowns the rest) and of the squared weights; steps of an update.
HALF_LIFE_WEIGHT, PENALTY, STEPS, RATE = 0.001, 0.01, 50, 0.1
#: Smallest loss that divides a delay [nat].
_LEAST_LOSS = 1e-6


def spaced_due(state: dict, epoch: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Static: due where exp(-lambda d) < threshold, the lowest predicted retention first."""
    decayed = state["constants"] * (epoch - state["last"])  # lambda d
    return torch.exp(-decayed) < threshold, decayed


def leitner_due(state: dict, epoch: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Boxes: due once a sample has waited 2^(box - 1) epochs, the most overdue (by ratio) first.

    All start in box 1. Right at its presentation moves a sample one box up, wrong back to box 1
    (the strict variant of the scheme).
    """
    waited = (epoch - state["last"]).double()
    wait = 2.0 ** (state["box"] - 1)
    return waited >= wait, waited / wait


def leitner_learn(state, epoch, shown, correct, loss, threshold) -> None:
    """The warm-up (epoch 0) shows features rather than pictures, and moves nothing."""
    if epoch > 0:
        up = (state["box"][shown] + 1).clamp_max(BOXES)
        state["box"][shown] = torch.where(correct, up, 1)


def half_life_due(state: dict, epoch: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Adaptive: due where predicted recall 2^(-d / h) < threshold, the lowest first."""
    elapsed = (epoch - state["last"]) / half_lives(state)  # in half-lives
    return 2.0**-elapsed < threshold, elapsed


def half_lives(state: dict) -> Tensor:
    """Predicted half-life [epoch], (sample,): 2^(w . (1, sqrt(1 + right), sqrt(1 + wrong)))."""
    return _half_life(state["weights"], _features(state))


def _features(state: dict) -> Tensor:
    right, wrong = state["right"], state["wrong"]
    return torch.stack([torch.ones_like(right), (1 + right).sqrt(), (1 + wrong).sqrt()], 1)


def _half_life(weights: Tensor, features: Tensor) -> Tensor:
    low, high = HALF_LIVES
    return 2.0 ** (features @ weights).clamp(math.log2(low), math.log2(high))


def half_life_learn(state, epoch, shown, correct, loss, threshold) -> None:
    """Half-life regression, the weights updated by the epoch's presentations.

    From the paper: the model p = 2^(-d / h) with log2 h linear in the roots of 1 + right and 1 +
    wrong answers so far, and the loss (p - p^)^2 + alpha (h - h^)^2 + penalty, with the observed
    half-life -d / log2 p. Inferred: no weight per item (theirs are words; a sample would have a
    handful of presentations each), recall 0 or 1 moved to `RECALLS` (theirs is a share of a
    lesson), AdaGrad on the whole epoch's mean instead of one presentation at a time.
    """
    if epoch == 0:
        return
    x, delay = _features(state)[shown], (epoch - state["last"][shown]).double()
    recall = torch.where(correct, RECALLS[1], RECALLS[0]).double()
    observed = (-delay / recall.log2()).clamp(*HALF_LIVES)
    weights, squares = state["weights"], state["squares"]
    for _ in range(STEPS):
        half = _half_life(weights, x)
        p = 2.0 ** (-delay / half)
        by_p = 2 * (p - recall) * math.log(2) ** 2 * p * delay / half
        by_half = 2 * HALF_LIFE_WEIGHT * (half - observed) * math.log(2) * half
        gradient = ((by_p + by_half)[:, None] * x).mean(0) + 2 * PENALTY * weights
        squares = squares + gradient**2
        weights = weights - RATE * gradient / (squares.sqrt() + 1e-8)
    state["weights"], state["squares"] = weights, squares
    state["right"][shown] += correct.double()
    state["wrong"][shown] += (~correct).double()


def loss_chances(state: dict) -> Tensor:
    """Chance of each sample at every draw of an epoch: mostly proportional to its last loss.

    Draws are with replacement and the gradient is *not* reweighted by 1 / (n chance): the expected
    step is that of a loss that weighs hard samples more, not an unbiased estimate of the mean
    loss's. All arms thus minimise the same function of what they are shown.
    """
    loss = state["loss"].clamp_min(_LEAST_LOSS)
    return (1 - UNIFORM_SHARE) * loss / loss.sum() + UNIFORM_SHARE / len(loss)


def loss_learn(state, epoch, shown, correct, loss, threshold) -> None:
    """Keep the loss of the last presentation; epoch 0 gives every sample its first one."""
    state["loss"][shown] = loss


def repeat_due(state: dict, epoch: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Repeat before Forgetting: a queue by expiry; due once it has come, the longest past first."""
    expired = epoch - state["expires"]
    return expired >= 0, expired


def repeat_learn(state, epoch, shown, correct, loss, threshold) -> None:
    """Set the epoch by which a sample shown now must be repeated.

    From the paper: recall falls with delay and difficulty and grows with strength, exp(-loss x
    delay / strength) in the exponential case; difficulty is the sample's loss, strength the
    network's performance; the delay is the longest that keeps recall at the threshold. Inferred:
    the closed form delay = -ln(threshold) strength / loss, rounded down, at least one epoch;
    strength is the share right among the samples just shown (theirs is validation accuracy, which
    here is the outcome and must not steer training); where fewer have expired than the epoch
    shows, the rest is drawn at random (theirs shows fewer, and so spends less).
    """
    strength = correct.double().mean().clamp_min(1e-3)
    delay = -math.log(threshold) * strength / loss.clamp_min(_LEAST_LOSS)
    state["expires"][shown] = epoch + delay.floor().clamp_min(1)


def _zeros(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.float64)


#: What a sampler remembers at the start besides the epoch each sample was last shown.
START = {
    "leitner": lambda n: {"box": torch.ones(n, dtype=torch.int64)},
    "half_life": lambda n: {
        **{"weights": _zeros(3), "squares": _zeros(3)},
        **{"right": _zeros(n), "wrong": _zeros(n)},
    },
    "loss_proportional": lambda n: {"loss": torch.ones(n, dtype=torch.float64)},
    "repeat": lambda n: {"expires": _zeros(n)},
}
#: (state, epoch, threshold) -> (due, urgency), each (sample,).
DUE = {
    **dict.fromkeys(("spaced", "spaced_shuffled", "spaced_other_seed"), spaced_due),
    **{"leitner": leitner_due, "half_life": half_life_due, "repeat": repeat_due},
}
#: (state, epoch, shown, correct, loss, threshold) -> None; changes the state.
LEARN = {
    **{"leitner": leitner_learn, "half_life": half_life_learn},
    **{"loss_proportional": loss_learn, "repeat": repeat_learn},
}
