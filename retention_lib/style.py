"""How every figure looks: sizes, type, short names, one colour for the same thing everywhere.

Colours are Okabe and Ito's, told apart by every common kind of colour blindness; line styles and
markers repeat what the colours say.
"""

from __future__ import annotations

import zlib

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

#: Width of one and of two printed columns [inch].
COLUMN, PAGE = 3.5, 7.0
#: (part of the name, colour, line style, marker): the first that fits is taken.
ARCHITECTURES = (
    ("resnet", "#0072B2", "-", "o"),
    ("deit", "#D55E00", "--", "s"),
    ("vit", "#D55E00", "--", "s"),
)
DATASETS = (
    ("oct", "#CC79A7", "-", "D"),
    ("bird", "#009E73", "-", "^"),
    ("cub", "#009E73", "-", "^"),
)
_OTHERS = ("#E69F00", "#56B4E9", "#000000", "#7F7F7F")
CHANCE, CEILING, TRUTH = "#7F7F7F", "#000000", "#E69F00"


def looks(name: str) -> tuple[str, str, str]:
    """Colour, line style and marker of an architecture or data set, from its name alone.

    Examples
    --------
    >>> looks("phantom_resnet18") == looks("resnet50")
    True
    """
    for part, *look in (*ARCHITECTURES, *DATASETS):
        if part in name.lower():
            return tuple(look)
    return _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)], "-.", "v"


def colour(name: str) -> str:
    """Colour of an architecture or data set."""
    return looks(name)[0]


def short_arch(name: str) -> str:
    """`deit` of `phantom_deit` or `deit_small_patch16_224`; of `b - a` both parts.

    Examples
    --------
    >>> short_arch("deit_small_patch16_224"), short_arch("phantom_deit - phantom_resnet18")
    ('deit_small', 'deit - resnet18')
    """
    parts = name.split(" - ")
    return " - ".join(part.removeprefix("phantom_").split("_patch")[0] for part in parts)


def short_class(name: str) -> str:
    """`Brandt Cormorant` of `023.Brandt_Cormorant`.

    Examples
    --------
    >>> short_class("black_capped_warbler")
    'black capped warbler'
    """
    return name.lstrip("0123456789.").replace("_", " ")


def use_style() -> None:
    """Set Matplotlib's defaults for figures that are read at column width."""
    mpl.rcParams.update(
        {
            "figure.dpi": 150,
            "savefig.dpi": 200,
            "figure.constrained_layout.use": True,
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.3,
            "lines.markersize": 4,
        }
    )


def new_figure(rows: int = 1, columns: int = 1, width: float = COLUMN, height: float = 2.5, **kw):
    """A figure in the house style and its axes (always an array (rows, columns)).

    Parameters
    ----------
    width, height : float
        Of the whole figure [inch].
    """
    use_style()
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **kw)


def shared_title(figure: Figure, text: str) -> Figure:
    """One line above all axes, at the left."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=9)
    return figure
