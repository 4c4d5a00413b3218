"""The notebooks: what their source must look like, and what they write at smoke size."""

from __future__ import annotations

import ast
import json
import re

import nbformat
import pytest

from retention_lib import paths, reproduce
from retention_lib.report import check_result

NOTEBOOKS = reproduce.notebooks()
SECTIONS = [
    "Claim and source",
    "Parameters",
    "Setup",
    "Traces",
    "Measurement",
    "Figure",
    "Verdict",
]
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


@each
def test_has_the_seven_sections_in_order(path):
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS


@each
def test_opens_with_its_title_and_committed_figure(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith(f"# {path.stem[:2]} · ")
    assert f"](../figures/phantom/{path.stem}.png)" in first.source


@each
def test_parameters_explain_themselves(path):
    parameters = reproduce.parameters_of(path)
    assert 1 <= len(parameters) <= 8 and next(iter(parameters)) == "profile"
    for name, (kind, default, meaning) in parameters.items():
        assert type(default) is kind, name
        assert re.fullmatch(r".+ \[.+\]", meaning), name


@each
def test_papermill_can_list_the_parameters(path, capsys):
    papermill = pytest.importorskip("papermill")
    listed = papermill.inspect_notebook(str(path))
    assert list(listed) == list(reproduce.parameters_of(path))
    assert all(entry["help"] for entry in listed.values())


@each
def test_cells_are_short_prose_comes_first_and_nothing_is_defined(path):
    cells = read(path).cells
    kinds = "".join(cell.cell_type[0] for cell in cells)  # m and c
    assert kinds.startswith("m") and "ccc" not in kinds
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        tree = ast.parse(cell.source)
        lines = [line for line in cell.source.splitlines() if line.strip()]
        special = "parameters" in cell.metadata.get("tags", []) or "import " in cell.source
        assert len(lines) <= (15 if special else 6), cell.source
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.walk(tree))
        assert max(map(len, lines)) <= 100


@each
def test_source_is_stripped_and_portable(path):
    book = read(path)
    assert book.metadata["kernelspec"]["name"] == "python3"
    text = path.read_text()
    assert "papermill" not in json.dumps(book.metadata)
    assert "injected-parameters" not in text and "/home/" not in text and "/tmp/" not in text
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def test_unknown_names_and_wrong_types_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "execute", lambda *_: pytest.fail("executed"))
    run = reproduce.run_notebooks
    with pytest.raises(ValueError, match=r"'smoek'.*smoke"):
        run("smoek", tmp_path)
    with pytest.raises(ValueError, match=r"'drwas'.*draws"):
        run("smoke", tmp_path, ["01"], {"drwas": 10})
    with pytest.raises(ValueError, match="draws must be int, got '10'"):
        run("smoke", tmp_path, ["01"], {"draws": "10"})
    with pytest.raises(ValueError, match=r"'98'.*Known"):
        run("smoke", tmp_path, ["98"])


def test_a_parameter_without_its_unit_is_refused(tmp_path):
    cell = nbformat.v4.new_code_cell('profile: str = "smoke"')
    cell.metadata["tags"] = ["parameters"]
    path = tmp_path / "00_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with pytest.raises(ValueError, match="type = literal  # meaning"):
        reproduce.parameters_of(path)
    nbformat.write(nbformat.v4.new_notebook(cells=[]), path)
    with pytest.raises(ValueError, match="one cell tagged parameters, got 0"):
        reproduce.parameters_of(path)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """All notebooks at smoke size, in a home and a working directory of their own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETENTION_HOME", str(home))
        patch.setenv("OMP_NUM_THREADS", "1")  # tiny tensors: threads only wait for each other
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        lines = []
        reproduce.run_notebooks("smoke", home / "build", log=lines.append)
        yield home, lines


def results(home, notebook):
    found = check_result(home / "figures" / "smoke" / f"{notebook}.json")["findings"]
    return {(f["dataset"], f["quantity"]): f for f in found}


@pytest.mark.notebook
def test_every_notebook_writes_figure_numbers_and_result(smoke):
    home, lines = smoke
    for path in NOTEBOOKS:
        for kind in ("png", "csv", "json"):
            assert (home / "figures" / "smoke" / f"{path.stem}.{kind}").stat().st_size > 0
        executed = read(home / "build" / path.name)
        assert not [
            o for c in executed.cells for o in c.get("outputs", []) if o.output_type == "error"
        ]
        assert sum(line.startswith(path.stem) for line in lines) == 1
    assert not (home / "README.md").exists()
    assert len(list((home / "runs").iterdir())) == 8 + 4  # the study, and notebook 06's arms


@pytest.mark.notebook
@pytest.mark.parametrize("dataset", ["phantom_oct", "phantom_birds"])
def test_smoke_numbers_are_in_range(smoke, dataset):
    home, _ = smoke
    capture = results(home, "00_capture_traces")
    for arch in ("cnn", "vit"):
        assert 0 <= capture[dataset, f"held_out_balanced_accuracy_{arch}"]["estimate"] <= 1
        assert capture[dataset, f"label_noise_auc_{arch}"]["planted"] == 1
        assert 0 <= capture[dataset, f"label_noise_auc_{arch}"]["estimate"] <= 1
    assert 0 < capture[dataset, "bytes_per_sample_epoch"]["estimate"] < 100
    overlap = results(home, "01_architecture_overlap")
    jaccard = overlap[dataset, "jaccard"]
    assert 0 <= jaccard["ci_low"] <= jaccard["estimate"] <= jaccard["ci_high"] <= 1
    assert 0 < jaccard["chance"] < 1 and 0 < jaccard["ceiling"] <= 1 and jaccard["n"] == 72
    assert (jaccard["paper"], jaccard["verdict"]) == (None, "instrument check")
    assert overlap[dataset, "jaccard_over_seeds"]["n"] == 2
    known = overlap[dataset, "jaccard_of_known_overlap"]
    assert known["estimate"] == pytest.approx(known["planted"], abs=0.05)
    structure = results(home, "02_decay_structure")
    for quantity in ("r2_cnn", "r2_vit"):
        value = structure[dataset, quantity]["estimate"]
        assert value is None or -10 < value <= 1  # None: every trace is constant
    known = structure[dataset, "r2_difference_of_known_traces"]
    assert known["planted"] == pytest.approx(0.22) and known["estimate"] > 0


@pytest.mark.notebook
@pytest.mark.parametrize(
    "notebook, quantity, low",
    [
        ("03_seed_stability", "spearman", -1),
        ("04_class_forgetting", "kendall_w", 0),
        ("05_early_loss", "spearman", -1),
    ],
)
@pytest.mark.parametrize("dataset", ["phantom_oct", "phantom_birds"])
def test_smoke_headlines_have_their_test(smoke, dataset, notebook, quantity, low):
    """A value in its range inside its interval, and the p of the null that `config` names."""
    home, _ = smoke
    found = results(home, notebook)[dataset, quantity]
    assert low <= found["ci_low"] <= found["estimate"] <= found["ci_high"] <= 1
    assert 1 / 2000 - 1e-9 <= found["p"] <= 1
    assert (found["paper"], found["verdict"]) == (None, "instrument check")


@pytest.mark.notebook
def test_smoke_results_agree_with_each_other(smoke):
    home, _ = smoke
    checks = results(home, "99_summary")["phantom", "consistency"]
    assert checks["n"] == 7 and checks["estimate"] == 1


@pytest.mark.notebook
def test_real_profile_without_images_says_not_yet_run(home, monkeypatch):
    monkeypatch.setenv("RETENTION_DATA", str(home / "nowhere"))
    reproduce.run_notebooks("real", home / "build")
    for name, count in (
        ("00_capture_traces", 2),
        ("01_architecture_overlap", 2),
        ("02_decay_structure", 6),
        ("03_seed_stability", 2),
        ("04_class_forgetting", 2),
        ("05_early_loss", 2),
        ("06_spaced_repetition", 2),
    ):
        found = check_result(paths.figures("real") / f"{name}.json")["findings"]
        assert len(found) == count
        for one in found:
            assert (one["estimate"], one["n"], one["method"]) == (None, 0, "not yet run")
            assert one["verdict"] in (None, "not tested at this scale")
    assert not (home / "runs").exists()
