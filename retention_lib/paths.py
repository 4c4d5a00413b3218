"""Where things lie: every path of the repository is made here, none from the working directory."""

from __future__ import annotations

import os
from pathlib import Path

#: The repository's root in an editable install; notebooks and the command line start from here.
ROOT = Path(__file__).resolve().parent.parent
PACKAGED_WEIGHTS = Path(__file__).resolve().parent / "weights"


def home() -> Path:
    """Folder that holds `runs`, `cache`, `results` and `figures`: RETENTION_HOME, else `ROOT`."""
    return Path(os.environ.get("RETENTION_HOME") or ROOT).expanduser().resolve()


def data_root() -> Path:
    """Folder with `octdl/`, `CUB_200_2011/` and `weights/`: RETENTION_DATA, else `data/`."""
    named = os.environ.get("RETENTION_DATA")
    return Path(named).expanduser().resolve() if named else home() / "data"


def runs() -> Path:
    """Folder of the run directories captured on this machine."""
    return home() / "runs"


def results() -> Path:
    """Folder of the published, read-only run directories."""
    return home() / "results"


def cache() -> Path:
    """Folder of decoded and drawn images; safe to delete."""
    return home() / "cache"


def figures(profile: str) -> Path:
    """Folder of one profile's figures and result files."""
    return home() / "figures" / profile
