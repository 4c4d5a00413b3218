"""The species of the phantom birds: the numbers that each is drawn from, and their true distances.

Species of one genus share shape and base colours and differ in a small mark; genera differ in
shape; the last species of finch, jay and stilt are distinctive.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

COLOURS = {
    "black": (0.09, 0.09, 0.11),
    "white": (0.97, 0.96, 0.92),
    "slate": (0.38, 0.43, 0.50),
    "brown": (0.45, 0.33, 0.23),
    "umber": (0.30, 0.21, 0.15),
    "olive": (0.47, 0.49, 0.27),
    "buff": (0.84, 0.73, 0.55),
    "cream": (0.94, 0.88, 0.74),
    "rust": (0.68, 0.31, 0.13),
    "yellow": (0.96, 0.80, 0.22),
    "lemon": (0.88, 0.84, 0.47),
    "orange": (0.95, 0.55, 0.14),
    "red": (0.80, 0.14, 0.12),
    "pink": (0.93, 0.55, 0.60),
    "blue": (0.33, 0.47, 0.68),
    "sky": (0.72, 0.80, 0.88),
    "green": (0.10, 0.60, 0.36),
    "grey": (0.55, 0.53, 0.50),
}
SHAPE = (
    *("length", "depth", "tilt", "head", "neck"),
    *("bill_length", "bill_depth", "bill_curve"),
    *("tail_length", "spread", "lift", "fork"),
    *("leg_length", "crest"),
)
PARTS = ("back", "belly", "wing", "tail", "bill", "leg")
MARKS = (  # in the order of painting: the wing goes over those before the wing bar
    *("cap", "brow", "eye_line", "eye_ring", "cheek", "bib", "moustache", "nape"),
    *("band", "spots", "vent", "wing_bar", "shoulder", "wing_tip", "tail_band"),
)

_GENERA = {  # the values of SHAPE, lengths in half images; then the colours of PARTS
    "warbler": (
        (0.37, 0.21, 0.35, 0.165, 0.02, 0.15, 0.035, 0.0, 0.36, 0.07, 0.00, 0.10, 0.15, 0.0),
        "olive lemon olive olive umber brown",
    ),
    "finch": (
        (0.36, 0.26, 0.50, 0.200, 0.00, 0.15, 0.100, 0.0, 0.28, 0.10, -0.1, 0.35, 0.13, 0.0),
        "brown buff umber umber grey brown",
    ),
    "thrush": (
        (0.42, 0.25, 0.70, 0.175, 0.05, 0.18, 0.045, 0.0, 0.34, 0.09, -0.1, 0.00, 0.26, 0.0),
        "grey cream grey grey umber buff",
    ),
    "wren": (
        (0.32, 0.25, 0.15, 0.180, -0.02, 0.20, 0.035, 0.9, 0.26, 0.08, 1.45, -0.3, 0.15, 0.0),
        "rust buff brown rust umber brown",
    ),
    "jay": (
        (0.42, 0.22, 0.60, 0.180, 0.03, 0.19, 0.065, 0.3, 0.56, 0.09, -0.1, -0.5, 0.16, 0.26),
        "blue sky blue blue black black",
    ),
    "stilt": (
        (0.36, 0.20, 0.20, 0.130, 0.22, 0.38, 0.030, 0.0, 0.16, 0.07, 0.05, -0.2, 0.42, 0.0),
        "slate white slate slate black grey",
    ),
}
_SPECIES = {  # what sets each species apart from its genus
    "black_capped_warbler": {"cap": "black"},
    "spectacled_warbler": {"eye_ring": "white"},
    "twin_barred_warbler": {"wing_bar": "white"},
    "dusky_bibbed_warbler": {"bib": "black"},
    "rust_capped_finch": {"cap": "rust"},
    "yellow_billed_finch": {"bill": "yellow"},
    "white_shouldered_finch": {"shoulder": "white"},
    "ember_finch": {"back": "red", "belly": "orange", "eye_line": "black"},
    "freckled_thrush": {"spots": "umber"},
    "collared_thrush": {"band": "umber"},
    "rusty_vented_thrush": {"vent": "rust"},
    "pale_browed_thrush": {"brow": "white"},
    "masked_wren": {"eye_line": "black"},
    "whiskered_wren": {"moustache": "black"},
    "tail_banded_wren": {"tail_band": "white"},
    "frosted_wren": {"cheek": "white"},
    "white_naped_jay": {"nape": "white"},
    "pearl_winged_jay": {"wing_tip": "white"},
    "banded_tail_jay": {"tail_band": "black"},
    "emerald_jay": {"back": "green", "belly": "yellow", "wing": "green", "tail": "green"},
    "red_legged_stilt": {"leg": "red"},
    "belted_stilt": {"band": "black"},
    "capped_stilt": {"cap": "black"},
    "sickle_billed_stilt": {"bill_curve": 1.6, "bill": "pink", "back": "pink", "belly": "pink"},
}
CLASSES: tuple[str, ...] = tuple(_SPECIES)
GENUS: dict[str, str] = {name: name.rsplit("_", 1)[1] for name in CLASSES}


@cache
def parameters() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape (class, shape), part colours (class, part, 3), mark presence and mark colours."""
    shape, parts, present, marks = [], [], [], []
    for name in CLASSES:
        values, colours = _GENERA[GENUS[name]]
        own = _SPECIES[name]
        shape.append([own.get(k, v) for k, v in zip(SHAPE, values, strict=True)])
        parts.append([COLOURS[own.get(k, c)] for k, c in zip(PARTS, colours.split(), strict=True)])
        present.append([float(k in own) for k in MARKS])
        marks.append([COLOURS[own.get(k, "white")] for k in MARKS])
    return tuple(torch.tensor(x) for x in (shape, parts, present, marks))


def class_distances() -> np.ndarray:
    """True distance of any two species, from the numbers that they are drawn from.

    Euclidean over shape, part colours and marks (presence and colour), each column divided by its
    standard deviation over species and each of the three blocks by the root of its column count,
    so that shape, colours and marks weigh the same.

    Returns
    -------
    ndarray of float64, (class, class)
        Symmetric with zeros on the diagonal, in the order of `CLASSES`.

    Examples
    --------
    >>> class_distances().shape
    (24, 24)
    """
    shape, parts, present, marks = (x.double().numpy() for x in parameters())
    drawn = np.concatenate([present[..., None], present[..., None] * marks], axis=2)
    total = 0.0
    for block in (shape, parts.reshape(len(CLASSES), -1), drawn.reshape(len(CLASSES), -1)):
        block = block[:, block.std(0) > 0]
        z = block / block.std(0) / np.sqrt(block.shape[1])
        total = total + ((z[:, None] - z[None]) ** 2).sum(2)
    return np.sqrt(total)
