"""How fast forgetting curves are fitted: all at once against one `curve_fit` a trace, side by side.

    python benchmarks/fit.py [--device cuda] [--quick] [--out FILE]
    python benchmarks/fit.py --parity [--models exponential_floor ...]   # the same optimum?

Distinct traces of 30 epochs in single precision, exponential with floor. Prints and writes
`build/bench/fit.json`: traces/s (best of several), ratios and peak memory. With --parity
instead: of 2,000 binary and 2,000 smooth ones per model every trace on which scipy, best of several
starts within the same bounds, is better by more than a relative 1e-6.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit, least_squares

from retention_lib import paths
from retention_lib.decay import LAMBDA_BOUNDS, fit_decay
from retention_lib.weibull import SHAPE_BOUNDS

T = np.arange(30.0)
MODEL = "exponential_floor"
#: A loss below scipy's by less than this share is the same.
SAME = 1e-6


def traces(n: int, kind: str = "smooth", seed: int = 0) -> np.ndarray:
    """Known curves with normal noise, or as coin tosses: (epoch, trace) in single precision."""
    rng = np.random.default_rng(seed)
    floor = rng.uniform(0, 0.8, n).astype(np.float32)
    rate = np.exp(rng.uniform(math.log(0.005), math.log(2), n)).astype(np.float32)
    r = floor + (1 - floor) * np.exp(-rate * T.astype(np.float32)[:, None])
    if kind == "binary":
        return (rng.random(r.shape, dtype=np.float32) < r).astype(np.float32)
    r += np.float32(0.1) * rng.standard_normal(r.shape, dtype=np.float32)
    return r


def ours(y: np.ndarray, device: str):
    """What is measured: switch here."""
    return fit_decay(y, model=MODEL, device=device)


def curve(t, rate, floor):
    """The model as a user of scipy writes it."""
    return floor + (1 - floor) * np.exp(-rate * t)


def scipy_trf(y: np.ndarray) -> None:
    """One bounded `curve_fit` (trust region) a trace."""
    bounds = ([LAMBDA_BOUNDS[0], 0], [LAMBDA_BOUNDS[1], 1])
    for column in y.T:
        curve_fit(curve, T, column, p0=(0.1, 0.5), bounds=bounds)


def scipy_lm(y: np.ndarray) -> None:
    """One unbounded `curve_fit` (Levenberg-Marquardt) a trace; what fails counts as fitted."""
    for column in y.T:
        try:
            curve_fit(curve, T, column, p0=(0.1, 0.5))
        except RuntimeError:
            pass


def xarray_curvefit(y: np.ndarray) -> None:
    """`DataArray.curvefit`, bounded."""
    import xarray

    array = xarray.DataArray(y, dims=("t", "trace"), coords={"t": T})
    bounds = {"rate": LAMBDA_BOUNDS, "floor": (0, 1)}
    array.curvefit("t", curve, p0={"rate": 0.1, "floor": 0.5}, bounds=bounds)


def lmfit_model(y: np.ndarray) -> None:
    """`lmfit.Model.fit`, bounded by its change of variables."""
    import lmfit

    model = lmfit.Model(curve)
    params = model.make_params(rate=0.1, floor=0.5)
    params["rate"].set(min=LAMBDA_BOUNDS[0], max=LAMBDA_BOUNDS[1])
    params["floor"].set(min=0, max=1)
    for column in y.T:
        model.fit(column, params, t=T)


RIVALS = {  # fits a second differ by so much that each gets its own number of traces
    "scipy curve_fit, trf, bounded": (scipy_trf, 300, "scipy"),
    "scipy curve_fit, lm": (scipy_lm, 3000, "scipy"),
    "xarray curvefit, bounded": (xarray_curvefit, 300, "xarray"),
    "lmfit Model.fit, bounded": (lmfit_model, 100, "lmfit"),
}


def seconds(function, device: str) -> tuple[float, float]:
    """Wall and processor time of one call."""
    start, used = time.perf_counter(), time.process_time()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - used


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def speed(device: str, quick: bool, repeats: int = 3) -> dict:
    """Alternate ours and the rivals, and quote the best of each."""
    sizes = [10**3, 10**4] if quick else [10**3, 10**4, 10**5, 10**6]
    y = traces(sizes[-1])
    ours(y[:, :1000], device)
    before, rows = peak_gib(), []
    for n in sizes:
        times = [seconds(lambda n=n: ours(y[:, :n], device), device) for _ in range(repeats)]
        wall, used = (min(values) for values in zip(*times, strict=True))
        row = {"ours": n, "traces_per_second": round(n / wall), "cpu_us": round(used / n * 1e6, 2)}
        row["peak_gib"] = round(peak_gib(), 2)
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    best, n = {}, min(sizes[-1], 10**5)
    for _ in range(repeats):  # side by side: other work on the machine meets all alike
        wall, _ = seconds(lambda: ours(y[:, :n], device), device)
        best["ours"] = max(best.get("ours", 0), n / wall)
        for name, (function, count, package) in RIVALS.items():
            if importlib.util.find_spec(package) is None:
                continue
            count = count // 10 if quick else count
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", (OptimizeWarning, RuntimeWarning))
                wall, _ = seconds(lambda f=function, k=count: f(y[:, :k].astype(float)), "cpu")
            best[name] = max(best.get(name, 0), count / wall)
    ratios = {name: round(best["ours"] / rate) for name, rate in best.items() if name != "ours"}
    for name, ratio in ratios.items():
        print(f"{name}: {best[name]:,.0f} traces/s, ours {ratio:,} times that")
    if device != "cpu":
        rows.append({"largest relative difference to the CPU": agreement(y[:, : 10**4], device)})
        print(rows[-1])
    return {
        "rows": rows,
        "rates": {name: round(rate) for name, rate in best.items()},
        "ratios": ratios,
        "peak_gib_before": round(before, 2),
    }


def agreement(y: np.ndarray, device: str) -> float:
    """Largest relative difference of the sums of squares on the device and on the CPU."""
    here, there = ours(y, "cpu").sse, ours(y, device).sse
    return float(np.abs(there / here - 1).max())


#: Numbers beside lambda that scipy searches in a box, and (R(0), R(inf)) from these.
PARITY = {
    "exponential": (0, lambda: (1, 0)),
    "exponential_floor": (1, lambda floor: (1, floor)),
    "exponential_amplitude": (2, lambda start, kept: (start, start * kept)),
    "exponential_signed": (2, lambda start, end: (start, end)),
    "power": (0, lambda: (1, 0)),
    "weibull": (1, lambda log_shape: (1, 0)),
}


def scipy_best(y: np.ndarray, model: str) -> float:
    """Least sum of squares of bounded searches from several starts."""
    n, ends = PARITY[model]
    shaped, clock = model == "weibull", np.log1p(T) if model == "power" else T
    box = np.log(SHAPE_BOUNDS) if shaped else (0, 1)
    bounds = [
        [math.log(bound), *[edge] * n] for bound, edge in zip(LAMBDA_BOUNDS, box, strict=True)
    ]

    def rest(x):
        x = x.tolist()
        start, end = ends(*x[1:])
        power = math.exp(x[1]) if shaped else 1.0
        return end + (start - end) * np.exp(-((math.exp(x[0]) * clock) ** power)) - y

    middle = [0.0 if shaped else 0.5] * n
    starts = [[math.log(rate), *middle] for rate in (0.005, 0.05, 0.5)]
    found = [least_squares(rest, x, bounds=bounds, xtol=1e-12, ftol=1e-12) for x in starts]
    return 2 * min(f.cost for f in found)


def parity(models: list[str], n: int) -> list[dict]:
    """Compare the sums of squares trace by trace and list every one where scipy is better."""
    rows = []
    for model in models:
        for kind in ("binary", "smooth"):
            y = traces(n, kind, seed=1).astype(float)
            fit = fit_decay(y, model=model)
            theirs = np.array([scipy_best(column, model) for column in y.T])
            excess = (fit.sse - theirs) / np.maximum(theirs, 1e-9)
            lost = np.flatnonzero(~(excess <= SAME))
            row = {"model": model, "kind": kind, "n": n, "lost": len(lost)}
            row |= {"as_good": 1 - len(lost) / n, "better": int((excess < -SAME).sum())}
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            row["losses"] = [
                {"trace": int(i), "ours": float(fit.sse[i]), "scipy": float(theirs[i])}
                | {name: float(values[i]) for name, values in fit.params.items()}
                for i in lost
            ]
            for loss in row["losses"]:
                print("   ", loss)
            rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="a tenth of the traces")
    parser.add_argument("--parity", action="store_true", help="compare optima, not times")
    parser.add_argument("--models", nargs="+", default=list(PARITY), choices=list(PARITY))
    parser.add_argument("--out", type=Path, help="build/bench/fit.json by default")
    args = parser.parse_args()
    name = "fit_parity" if args.parity else "fit" if args.device == "cpu" else f"fit_{args.device}"
    out = args.out or paths.home() / "build/bench" / f"{name}.json"
    machine = {"threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
    if args.device != "cpu":
        machine["device"] = torch.cuda.get_device_name(args.device)
    if args.parity:
        found = {"rows": parity(args.models, 200 if args.quick else 2000)}
    else:
        found = speed(args.device, args.quick)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
