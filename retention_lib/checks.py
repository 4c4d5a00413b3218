"""Strictness of all settings: names, types and values are checked, with both sides quoted."""

from __future__ import annotations

import difflib
import types
import typing


def check_names(given, known: list[str], where: str) -> None:
    """Raise a ValueError for each name that is not known, with the nearest that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {near[0]!r}" if near else ""
            raise ValueError(f"{where}: unknown name {name!r}{hint}. Known: {sorted(known)}")


def check_types(config) -> None:
    """Compare every field with its annotation; whole numbers are accepted where floats belong."""
    for name, expected in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        allowed, elements = (expected,), ()
        if isinstance(expected, types.UnionType):
            allowed = typing.get_args(expected)
        elif typing.get_origin(expected) is tuple:  # tuple[str, ...]: every element is checked
            allowed, elements = (tuple,), typing.get_args(expected)[:1]
        if float in allowed and type(value) is int:
            object.__setattr__(config, name, float(value))
        elif type(value) not in allowed or (  # exact: bool is no int, a NumPy scalar is no float
            elements and any(type(v) not in elements for v in value)
        ):
            wanted = " or ".join(t.__name__ for t in allowed)
            wanted += f" of {elements[0].__name__}" if elements else ""
            raise ValueError(
                f"{type(config).__name__}.{name} must be {wanted}, got {value!r} ({type(value)})"
            )


def require(config, name: str, holds: bool, expected: str) -> None:
    """Raise a ValueError that quotes a field's value and what was expected of it."""
    if not holds:
        value = getattr(config, name)
        raise ValueError(f"{type(config).__name__}.{name} must be {expected}, got {value!r}")


def check_level(level: float) -> None:
    """Raise a ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
