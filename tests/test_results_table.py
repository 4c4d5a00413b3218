"""The table of results says what the files say, and takes only its own place in the README."""

import math

import pytest
from result_files import save

from retention_lib import results_table, verdicts
from retention_lib.intervals import one_row

ROW = one_row(0.33, 0.30, 0.36, 1600, 0.001, "bootstrap")


def test_the_summary_says_not_yet_run_until_it_is(tmp_path):
    empty = results_table.summary_table(tmp_path)
    assert list(empty.columns)[:4] == ["Finding", "Paper", "OCTDL", "CUB-200-2011"]
    assert "nstrument check" in empty.columns[4]
    assert empty.loc[0, "Paper"] == "0.34 (OCTDL), 0.15 (CUB-200-2011)"
    assert "0.30 to 0.50" in set(empty["Paper"])
    assert (empty[["OCTDL", "CUB-200-2011"]] == "not yet run").all(axis=None)

    about = "architecture_overlap", "phantom_oct"
    known = verdicts.record(*about, "known_overlap", ROW, planted=0.4)
    own = verdicts.record(*about, "jaccard", ROW, chance=0.08)
    save(tmp_path, [own, known])
    real = verdicts.record("architecture_overlap", "octdl", "jaccard", ROW, 0.06, 0.5)
    absent = one_row(math.nan, math.nan, math.nan, 0, math.nan, "not yet run")
    cub = verdicts.record("architecture_overlap", "cub", "jaccard", absent, scale="reduced")
    save(tmp_path, [real, cub], profile="real")
    table = results_table.summary_table(tmp_path)
    assert table.loc[0, "OCTDL"] == (
        "0.33 [0.30, 0.36], n = 1,600, chance 0.06, ceiling 0.50: **reproduced**"
    )
    assert table.loc[0, "CUB-200-2011"] == "not yet run"
    assert table.iloc[0, 4] == "oct 0.33 [0.30, 0.36] (nothing planted)"
    assert table.iloc[-1, [0, 1, 2]].tolist() == ["architecture overlap: known overlap", "–", "–"]
    assert table.iloc[-1, 4] == "oct 0.33 [0.30, 0.36] (planted 0.40)"
    save(tmp_path, [own], notebook="02_decay_structure")
    with pytest.raises(ValueError, match="already reported by another notebook"):
        results_table.summary_table(tmp_path)


def test_the_readme_changes_between_its_markers_only(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results_table.START}\nold\n{results_table.END}\nafter\n")
    results_table.update_readme(readme)
    text = readme.read_text()
    assert text.startswith(f"before\n{results_table.START}\n\n| Finding | Paper |")
    assert text.endswith(f"{results_table.END}\nafter\n") and "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    results_table.update_readme(readme, tmp_path / "figures")
    assert readme.read_text() == text
    readme.write_text(f"{results_table.END} {results_table.START}")
    with pytest.raises(ValueError, match="expected <!-- results:begin --> and then"):
        results_table.update_readme(readme)
