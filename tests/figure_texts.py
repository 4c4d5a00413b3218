"""What a drawn figure says, for the tests of figures."""

from __future__ import annotations


def labels(ax) -> list[str]:
    """Texts of the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]
