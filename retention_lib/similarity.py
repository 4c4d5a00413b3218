"""Which classes look alike, by three measures.

Distances come from the numbers a phantom is drawn from, from what annotators saw (CUB's class
attributes) or from a pretrained network that was not yet tuned. The first two owe nothing to the
networks under study. What they are compared with is in `semantics`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib import data, models, paths, probe
from retention_lib.data import cub
from retention_lib.data.imageset import ImageSet


def attribute_distances(root: str | Path, classes: tuple[str, ...] | None = None) -> np.ndarray:
    """Distance of CUB's species by the attributes that annotators saw, (class, class).

    Root mean squared difference over the 312 attributes [percentage points].

    Parameters
    ----------
    root : path
        The folder that holds `CUB_200_2011/`.
    classes : tuple of str, optional
        Which classes, in which order; by default those of `classes.txt`.

    Raises
    ------
    ValueError
        If the attribute files are missing or not of the official form (`cub.class_attributes`), or
        a class is not listed.
    """
    table = cub.class_attributes(root)
    if classes is not None:
        if unknown := [c for c in classes if c not in table.index]:
            raise ValueError(f"classes must be among those of classes.txt, got {unknown[:3]}")
        table = table.loc[list(classes)]
    values = table.to_numpy()
    return np.sqrt(((values[:, None] - values[None]) ** 2).mean(-1))


def centroid_distances(features: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    r"""Distance of class centroids in a feature space, the noise of the centroids taken off.

    Every feature is divided by its standard deviation within classes. With centroids c and the
    classes' own variances s^2, over F features,

    .. math:: d_{ab}^2 = \max\Bigl(0, \frac{1}{F} \sum_f (c_{af} - c_{bf})^2
        - \frac{s_{af}^2}{n_a} - \frac{s_{bf}^2}{n_b}\Bigr),

    so that a class of few images is not distant merely because its centroid is unsure.

    Parameters
    ----------
    features : array, (sample, feature)
    labels : array of int, (sample,)
    n_classes : int

    Returns
    -------
    ndarray of float64, (class, class)
        In standard deviations; NaN for classes of fewer than two samples.

    Examples
    --------
    >>> y = np.repeat(np.arange(4), 100)
    >>> x = np.random.default_rng(0).normal(size=(400, 50)) + np.array([0, 0, 2, 6])[y][:, None]
    >>> centroid_distances(x, y, 4)[0].round(1).tolist()
    [0.0, 0.0, 2.0, 6.0]
    """
    x, labels = np.asarray(features, float), np.asarray(labels)
    if x.ndim != 2 or labels.shape != x.shape[:1] or not np.isfinite(x).all():
        raise ValueError(
            f"features must be finite, (sample, feature), one label each; got {x.shape} with "
            f"{(~np.isfinite(x)).sum()} not finite, and labels {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1}, got {labels.min()}..{labels.max()}"
        )
    n = np.bincount(labels, minlength=n_classes)
    centre, squares = np.zeros((2, n_classes, x.shape[1]))
    np.add.at(centre, labels, x)
    centre /= np.maximum(n, 1)[:, None]
    np.add.at(squares, labels, (x - centre[labels]) ** 2)
    within = squares.sum(0) / max(len(x) - np.count_nonzero(n), 1)
    varies = within > 0
    scale = np.sqrt(within[varies])
    centre = centre[:, varies] / scale
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = (squares[:, varies] / scale**2 / (n - 1.0)[:, None] / n[:, None]).mean(1)
    noise[n < 2] = np.nan
    square = ((centre[:, None] - centre[None]) ** 2).mean(-1) - noise[:, None] - noise
    out = np.sqrt(np.where(np.isnan(square), np.nan, np.maximum(square, 0)))
    np.fill_diagonal(out, 0)
    return out


def class_centroid_distances(
    images: ImageSet, arch: str, weights: str = "default", split: str = "train"
) -> np.ndarray:
    """`centroid_distances` in what a pretrained network sees before any fine-tuning.

    Parameters
    ----------
    images : ImageSet
    arch, weights : str
        As in `models.build_model`; the features are those its classifier reads.
    split : str
        Whose images, with their observed labels.
    """
    rows = images.rows(split)
    net = models.build_model(arch, len(images.classes), images.size, weights)
    found = probe.features(net, images.images[rows]).numpy()
    labels = images.samples["label"].to_numpy()[rows]
    return centroid_distances(found, labels, len(images.classes))


def known_distances(
    images: ImageSet, archs: tuple[str, ...] = (), root: str | Path | None = None, log=print
) -> dict[str, np.ndarray]:
    """Every measure of distance that is to be had for a data set.

    Parameters
    ----------
    images : ImageSet
    archs : tuple of str
        Networks whose pretrained features are used.
    root : path, optional
        Folder of the real data, `paths.data_root()` by default.
    log : callable
        Is told which measure is not to be had, and why.

    Returns
    -------
    dict of ndarray, (class, class)
        `planted` (phantoms), `attributes` (CUB), `features of <arch>`.
    """
    out = {}
    if images.name in data.PHANTOMS:
        module = importlib.import_module(f"retention_lib.data.{images.name}")
        of = [module.CLASSES.index(name) for name in images.classes]
        out["planted"] = module.class_distances()[np.ix_(of, of)]
    if images.name == cub.NAME:
        try:
            out["attributes"] = attribute_distances(root or paths.data_root(), images.classes)
        except ValueError as error:
            log(f"{images.name}: no distances by attributes: {error}")
    return out | {f"features of {arch}": class_centroid_distances(images, arch) for arch in archs}


def neighbours(distances: np.ndarray, nearest: int = 3) -> pd.DataFrame:
    """How close the others are: one row per class.

    Returns
    -------
    DataFrame
        `label`, `nearest` (class; the smaller label at a tie; -1 without any),
        `nearest_distance`, `mean_of_nearest` (over the `nearest` closest, or all there are).

    Examples
    --------
    >>> neighbours(np.abs(np.subtract.outer([0, 1, 5], [0, 1, 5])), 2)["mean_of_nearest"].tolist()
    [3.0, 2.5, 4.5]
    """
    others = off_diagonal(distances)
    near = np.where(np.isnan(others), np.inf, others)
    by_distance = np.sort(others, axis=1)[:, : min(nearest, len(others) - 1)]
    return pd.DataFrame(
        {
            "label": np.arange(len(others)),
            "nearest": np.where(np.isfinite(near).any(1), near.argmin(1), -1),
            "nearest_distance": by_distance[:, 0],
            "mean_of_nearest": by_distance.mean(1),
        }
    )


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """A float copy with NaN on the diagonal."""
    out = np.array(matrix, float)
    if out.ndim != 2 or out.shape[0] != out.shape[1] or len(out) < 2:
        raise ValueError(f"expected a square matrix of 2 or more classes, got shape {out.shape}")
    np.fill_diagonal(out, np.nan)
    return out
