"""Result files as a notebook writes them, for the tests of what reads them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from retention_lib import report, verdicts
from retention_lib.config import RunConfig
from retention_lib.intervals import one_row


def save(folder, findings=None, profile="phantom", notebook="01_architecture_overlap"):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    if findings is None:
        row = one_row(np.float64(1 / 3), 0.2, np.float32(0.5), np.int64(80), np.nan, "bootstrap")
        findings = [verdicts.record("architecture_overlap", "phantom_oct", "jaccard", row, 0.05)]
    configs = [RunConfig("phantom_oct", seed=1), "phantom_oct-resnet18-s0-0123456789"]
    data = pd.DataFrame({"share": [0.1], "jaccard": [1 / 3]})
    path = report.save_result(notebook, profile, findings, fig, data, configs, folder)
    plt.close(fig)
    return path
