"""Execute the notebooks, two at a time where that is safe, and check what each of them wrote."""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat

from retention_lib import paths, report, results_table
from retention_lib.checks import check_names
from retention_lib.config import profile as find_profile

NOTEBOOKS = paths.ROOT / "notebooks"
KERNEL = "python3"


def notebooks(only: list[str] | None = None) -> list[Path]:
    """The notebooks in order, or those whose number or name is in `only`.

    Raises
    ------
    ValueError
        If there are none, or `only` names one that does not exist.
    """
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ValueError(f"no notebooks in {NOTEBOOKS}: run from a clone of the repository")
    names = {stem: path for path in found for stem in (path.stem[:2], path.stem)}
    check_names(only or [], sorted(names), "notebooks")
    return [path for path in found if not only or {path.stem[:2], path.stem} & set(only)]


def parameters_of(notebook: Path) -> dict[str, tuple[type, object, str]]:
    """Read the cell tagged `parameters`: name -> (type, default, meaning).

    Every line must be `name: type = literal  # meaning [unit]`.

    Raises
    ------
    ValueError
        If there is not exactly one such cell, or a line of it has another form.
    """
    cells = [
        cell.source
        for cell in nbformat.read(notebook, as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{notebook.name} must have one cell tagged parameters, got {len(cells)}")
    found = {}
    for line in filter(None, map(str.strip, cells[0].splitlines())):
        code, _, meaning = line.partition("  # ")
        node = ast.parse(code).body[:1]
        if not node or not isinstance(node[0], ast.AnnAssign) or not meaning.endswith("]"):
            raise ValueError(
                f"{notebook.name}: a parameter must read 'name: type = literal  # meaning [unit]', "
                f"got {line!r}"
            )
        kind = {"str": str, "int": int, "float": float, "bool": bool}[node[0].annotation.id]
        found[node[0].target.id] = (kind, ast.literal_eval(node[0].value), meaning)
    return found


def check_parameters(notebook: Path, given: dict) -> None:
    """Raise a ValueError for a name the notebook does not have, or a value of another type.

    papermill only warns of an unknown name, and goes on with the default.
    """
    known = parameters_of(notebook)
    check_names(given, list(known), f"parameters of {notebook.name}")
    for name, value in given.items():
        kind = known[name][0]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(
                f"{notebook.name}: {name} must be {kind.__name__}, got {value!r} ({type(value)})"
            )


def run_notebooks(
    profile: str,
    out_dir: Path | str,
    only: list[str] | None = None,
    parameters: dict | None = None,
    log=print,
    jobs: int | None = None,
) -> dict[str, float]:
    """Execute notebooks at one profile, validate their results, and render the README's table.

    The first is run alone, for it captures the runs that all others only read; these are run
    side by side, one core each; the summary, which reads their results, comes last.

    Parameters
    ----------
    profile : str
        `smoke`, `phantom` or `real`.
    out_dir : Path
        Receives the executed copies, outputs included; made if it does not exist.
    only : list of str, optional
        Numbers or names; all by default.
    parameters : dict, optional
        Given to every notebook that is run, besides the profile. Names and types are checked
        before anything is executed.
    jobs : int, optional
        Notebooks at a time, by default one per core but no more than two: each holds the traces of
        the whole study.

    Returns
    -------
    dict
        Seconds per notebook, in their order.

    Raises
    ------
    ValueError
        On an unknown profile, notebook or parameter, or a result file that breaks the schema.
    RuntimeError
        If a cell fails; names the executed copy, which holds the traceback.
    """
    find_profile(profile)
    given, out_dir = {"profile": profile, **(parameters or {})}, Path(out_dir).resolve()
    chosen = notebooks(only)
    for notebook in chosen:
        check_parameters(notebook, given)
    out_dir.mkdir(parents=True, exist_ok=True)
    jobs = min(2, os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    seconds, begin = {}, time.monotonic()

    def run(notebook: Path) -> None:
        start = time.monotonic()
        execute(notebook, out_dir / notebook.name, given)
        report.check_result(paths.figures(profile) / f"{notebook.stem}.json")
        seconds[notebook.stem] = time.monotonic() - start
        log(f"{notebook.stem:28s} {seconds[notebook.stem]:6.1f} s")

    with _own_kernel():
        for stage in _stages(chosen):
            with ThreadPoolExecutor(jobs if len(stage) > 1 else 1) as pool, _one_thread(stage):
                for done in [pool.submit(run, notebook) for notebook in stage]:
                    done.result()  # the first failure is raised when those begun have ended
    log(
        f"{len(chosen)} notebooks in {time.monotonic() - begin:.0f} s: executed copies in {out_dir}"
    )
    readme = paths.home() / "README.md"  # a home elsewhere has none, and the clone's is left alone
    if readme.is_file() and results_table.START in readme.read_text():
        results_table.update_readme(readme)
        log("README.md: table rendered from the result files")
    return {notebook.stem: seconds[notebook.stem] for notebook in chosen}


def _stages(chosen: list[Path]) -> list[list[Path]]:
    """What may run side by side: the first alone, the others, then the summary.

    Of the others the last comes first: it trains networks of its own and takes longest.
    """
    summary = [path for path in chosen if path.stem.startswith("99")]
    others = [path for path in chosen if path not in summary]
    return [stage for stage in (others[:1], others[:0:-1], summary) if stage]


@contextmanager
def _one_thread(stage: list[Path]):
    """One thread in each kernel of several, unless the caller has set a number."""
    if len(stage) < 2 or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run one notebook (within `_own_kernel`); `out` receives the executed copy."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(notebook),
            str(out),
            parameters,
            kernel_name=KERNEL,
            progress_bar=False,
            log_output=False,
        )
    except PapermillExecutionError as error:
        raise RuntimeError(
            f"{notebook.name} failed in cell {error.cell_index}: {error.ename}: {error.evalue} "
            f"(traceback in {out})"
        ) from error
    _keep_links(out, notebook.parent)


@contextmanager
def _own_kernel():
    """Let `python3` mean this interpreter, whatever is registered; nothing is registered itself."""
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / KERNEL / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR"]
        argv += ["-f", "{connection_file}"]
        spec.write_text(
            json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"})
        )
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH")
            if before is not None:
                os.environ["JUPYTER_PATH"] = before


def _keep_links(out: Path, source: Path) -> None:
    """Make the executed copy's relative images point to where they lie."""
    figures = os.path.relpath(source.parent / "figures", out.parent)
    book = nbformat.read(out, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../figures/", f"]({figures}/")
    nbformat.write(book, out)
