"""The demo's promise is checked by what its table says."""

import importlib.util

import pytest

from sbr_core.io.tables import write_tsv

LINEAR = {
    ("in_plane_mm", "", "mean"): 3.0,
    ("folding", "", "max"): 0.0,
    ("dice_volume", "2", "value"): 0.70,
    ("dice_volume", "3", "value"): 0.60,
}
GOOD = LINEAR | {
    ("in_plane_mm", "", "mean"): 1.5,
    ("dice_volume", "2", "value"): 0.71,
    ("dice_volume", "3", "value"): 0.61,
}


@pytest.fixture
def check(tmp_path, repository):
    """`check(values of sbr, *arguments)`: the exit code of the script."""
    spec = importlib.util.spec_from_file_location(
        "check_demo", repository / "benchmarks" / "check_demo.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(sbr, *arguments):
        columns = ("method", "metric", "class", "statistic", "value")
        rows = [
            dict(zip(columns, (method, *key, value), strict=True))
            for method, values in (("linear", LINEAR), ("sbr", sbr))
            for key, value in values.items()
        ]
        write_tsv(tmp_path / "summary.tsv", rows)
        return script.main([str(tmp_path / "summary.tsv"), *arguments])

    return run


def test_half_the_error_without_folds_and_more_overlap_passes(check, capsys):
    assert check(GOOD) == 0
    assert "in_plane_mm, mean" in capsys.readouterr().out


@pytest.mark.parametrize(
    "spoilt",
    [
        {("in_plane_mm", "", "mean"): 1.51},
        {("folding", "", "max"): 1e-4},
        {("dice_volume", "2", "value"): 0.70},
        {("dice_volume", "3", "value"): 0.59},
    ],
)
def test_each_broken_promise_fails(check, spoilt):
    assert check(GOOD | spoilt) == 1


def test_the_identity_field_fails(check, capsys):
    assert check(LINEAR) == 1
    assert check(GOOD, "--method", "linear") == 1
    assert capsys.readouterr().out.count("NO") == 2 * 3  # it folds nothing, to be fair


def test_a_table_that_lacks_a_value_is_one_line(check, capsys):
    values = {key: value for key, value in GOOD.items() if key[0] != "folding"}
    assert check(values) == 2
    assert capsys.readouterr().err.endswith("summary.tsv: has no sbr folding max\n")
