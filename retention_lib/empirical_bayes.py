"""The engine of `shrinkage`: accelerated EM, samples and class means integrated out on grids."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

_N_MEANS = 33  # nodes of a class mean, half a posterior standard deviation apart
_MIN_POOLED = 0.05  # least omega where it is integrated out: about two thirds of a node apart
_MIN_OMEGA = 1e-3  # class means 0.1 % apart: in effect none
_TOLERANCE = 1e-6  # largest change of (mu, log tau, log omega) in an EM step at convergence
#: EM has also converged where a step gains less than this [nat]: along a ridge it creeps on for
#: thousands of steps that change nothing of consequence.
_GAIN = 1e-8
TINY = 1e-300


class Data(NamedTuple):
    """Traces in the order of their classes, and the grid."""

    right: np.ndarray  # (trace, epoch) counts over runs
    wrong: np.ndarray
    edges: np.ndarray  # (class + 1,) first trace of each class
    t: np.ndarray  # (epoch,)
    u: np.ndarray  # (node,)
    log_right: np.ndarray  # (epoch, node) log R
    log_wrong: np.ndarray
    chunk: int

    def parts(self, k: int):
        """Slices of the traces of class k that fit the memory."""
        for start in range(self.edges[k], self.edges[k + 1], self.chunk):
            yield slice(start, min(start + self.chunk, self.edges[k + 1]))

    def likelihood(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """(trace, node) likelihoods divided by their largest, and the logarithm of that."""
        logs = self.right[part].astype(float) @ self.log_right
        logs += self.wrong[part].astype(float) @ self.log_wrong
        peak = logs.max(1)
        return np.exp(logs - peak[:, None]), peak

    def kernel(self, means: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Normal(u; m, tau^2) du and the squared distance (u - m)^2, both (node, mean)."""
        square = (self.u[:, None] - means) ** 2
        scale = (self.u[1] - self.u[0]) / (tau * math.sqrt(2 * math.pi))
        return scale * np.exp(-square / (2 * tau**2)), square


class State(NamedTuple):
    """A class mean's posterior on its own nodes, and what an EM step needs of the class."""

    means: np.ndarray
    post: np.ndarray  # sums to 1
    evidence: float  # log marginal likelihood of the class
    squares: float  # expected sum of (u_i - m)^2


def maximise(data: Data, max_iter: int):
    """Two EM steps, then an extrapolation along them, kept if the likelihood does not fall.

    Returns theta = (mu, log tau, log omega), the log-likelihoods on the way, the class states.
    """
    n_classes, h = len(data.edges) - 1, data.u[1] - data.u[0]
    rate = data.wrong.sum() / ((data.right + data.wrong) @ data.t).sum()
    theta = np.array([math.log(rate), 0.0, math.log(0.5)])
    limits = np.array([[data.u[0], math.log(h), math.log(_MIN_OMEGA)], [data.u[-1], 3.0, 3.0]])
    flat = np.full(_N_MEANS, 1 / _N_MEANS)
    states = [State(np.linspace(data.u[0], data.u[-1], _N_MEANS), flat, 0.0, 0.0)] * n_classes
    path = []
    while len(path) < max_iter:
        one, value, states = _em_step(data, theta, states)
        path.append(value)
        if np.abs(one - theta).max() < _TOLERANCE:
            return theta, path, states
        two, value, states = _em_step(data, one, states)
        path.append(value)
        if 0 <= path[-1] - path[-2] < _GAIN:
            return one, path, states
        move, bend = one - theta, two - 2 * one + theta
        length = max(1.0, np.linalg.norm(move) / max(np.linalg.norm(bend), TINY))
        jump = np.clip(theta + 2 * length * move + length**2 * bend, *limits)
        if two[2] < one[2] and two[2] < two[1] - 2:  # on its way to 0, ever more slowly
            jump[2] = limits[0, 2]
        theta = two
        if length > 1:
            three, value, states = _em_step(data, jump, states)
            if value >= path[-1]:
                theta = three
                path.append(value)
    raise RuntimeError(f"EM not converged in {max_iter} steps, last at {theta}; raise max_iter")


def _em_step(data: Data, theta, states) -> tuple[np.ndarray, float, list[State]]:
    """One step from theta = (mu, log tau, log omega): the next, and the log-likelihood here."""
    found = []
    for k, state in enumerate(states):
        inside = np.flatnonzero(state.post > math.exp(-32) * state.post.max())[[0, -1]]
        ends = state.means[inside] + (state.means[1] - state.means[0]) * np.array([-1, 1])
        found.append(_class_state(data, k, np.linspace(*ends, _N_MEANS), theta))
    mu = np.mean([s.post @ s.means for s in found])
    tau = math.sqrt(sum(s.squares for s in found) / len(data.right))
    spread = np.mean([s.post @ (s.means - mu) ** 2 for s in found])
    floors = (data.u[1] - data.u[0], _MIN_OMEGA)
    scales = np.log(np.maximum([tau, math.sqrt(spread)], floors))
    return np.array([mu, *scales]), sum(s.evidence for s in found), found


def _class_state(data: Data, k: int, means, theta) -> State:
    """Integrate out the samples of class k, then its mean, from the nodes `means` on."""
    mu, tau, omega = theta[0], *np.exp(theta[1:])
    squares = np.empty(0)

    def log_density(means):
        nonlocal squares
        density, square = data.kernel(means, tau)
        logs, squares = np.zeros(len(means)), np.zeros(len(means))
        for part in data.parts(k):
            likelihood, peak = data.likelihood(part)
            marginal = np.maximum(likelihood @ density, TINY)
            logs += np.log(marginal).sum(0) + peak.sum()
            squares += (likelihood @ (density * square) / marginal).sum(0)
        if len(data.edges) == 2:  # a single class: flat prior
            return logs
        return logs - (means - mu) ** 2 / (2 * omega**2) - math.log(omega * math.sqrt(2 * math.pi))

    means, logs = _bracket(log_density, means)
    post = np.exp(logs - logs.max())
    evidence = logs.max() + math.log(post.sum() * (means[1] - means[0]))
    post /= post.sum()
    return State(means, post, evidence, float(post @ squares))


def _bracket(log_density, nodes):
    """Nodes spread over where a log-concave density is within e^-32 of its peak, and its logarithm.

    Widened until it falls off at both ends, narrowed until enough nodes lie inside.
    """
    for _ in range(100):
        logs = log_density(nodes)
        step = nodes[1] - nodes[0]
        inside = np.flatnonzero(logs > logs.max() - 32)
        falls = logs[[0, -1]] < logs.max() - 18
        if falls.all() and len(inside) >= _N_MEANS // 3:
            return nodes, logs
        margin = np.where(falls, step, step * _N_MEANS)
        nodes = np.linspace(nodes[inside[0]] - margin[0], nodes[inside[-1]] + margin[1], _N_MEANS)
    raise RuntimeError(f"a mean of log lambda is not bracketed, last {nodes[0]}..{nodes[-1]}")


def pool(data: Data, states, theta) -> list[State]:
    """Posteriors of the class means with mu and omega integrated out, at the tau of `theta`.

    A few classes leave omega open, often down to 0, where plugging it in would make every class
    mean the same and sure. mu has a flat prior and omega a half-normal one of scale 1: classes
    within a factor of about e of each other, by default. The class likelihoods are smooth, so
    they are computed under a wide prior once and interpolated.
    """
    wide = np.array([theta[0], theta[1], math.log(2.0)])
    nodes, base = [], []
    for means, post, *_ in _em_step(data, wide, states)[2]:
        nodes.append(np.linspace(means[0], means[-1], 257))
        logs = np.log(np.maximum(post, TINY)) + (means - theta[0]) ** 2 / (2 * 2.0**2)
        base.append(CubicSpline(means, logs)(nodes[-1]))
    nodes, base = np.array(nodes), np.array(base)  # (class, mean)
    base = np.exp(base - base.max(1, keepdims=True))

    def split(mus, omega):
        joint = base * np.exp(-((nodes - mus[:, None, None]) ** 2) / (2 * omega**2))
        return joint, np.maximum(joint.sum(-1), TINY)  # (mu, class, mean), (mu, class)

    def log_density(omega, mus):
        return np.log(split(mus, omega)[1] / omega).sum(-1)

    mus, ends = np.linspace(nodes.min(), nodes.max(), _N_MEANS), np.log([_MIN_POOLED, 4.0])
    for _ in range(20):  # closer and closer round the posterior of log omega
        omegas, found = np.exp(np.linspace(*ends, 25)), []
        for omega in omegas:
            mus, logs = _bracket(partial(log_density, omega), mus)
            found.append((mus, logs + math.log((mus[1] - mus[0]) * omega) - omega**2 / 2))
        top = max(logs.max() for _, logs in found)
        mass = np.array([np.exp(logs - top).sum() for _, logs in found])
        inside = np.flatnonzero(mass > math.exp(-16) * mass.max())
        if len(inside) > 8:
            break
        ends = np.log(omegas[[max(inside[0] - 1, 0), min(inside[-1] + 1, 24)]])
    else:
        raise RuntimeError(f"omega is not bracketed, last {omegas[0]}..{omegas[-1]}")
    post = np.zeros_like(nodes)
    for i in inside:
        joint, total = split(found[i][0], omegas[i])
        weight = np.exp(found[i][1] - top) * (0.5 if i == 0 else 1)  # trapezoid at the least omega
        post += np.einsum("a,acm,ac->cm", weight, joint, 1 / total)
    post /= post.sum(1, keepdims=True)
    return [State(*pair, 0.0, 0.0) for pair in zip(nodes, post, strict=True)]
