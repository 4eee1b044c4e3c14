"""The spread over seeds, and vectors that differ in their last digits."""

import json

import pytest
from typer.testing import CliRunner

from classify.__main__ import app
from classify.config import RunConfig
from classify.errors import RunError
from classify.runs.train import run
from classify.studies.seeds import seeds_of


def test_a_head_without_chance_has_no_spread(polarity_run):
    """Every seed gives the linear head again, and the last digits of the vectors move nothing."""
    found = seeds_of(polarity_run, 3)
    assert (found["part"], found["seeds"], found["moved_by"]) == ("test", [0, 1, 2], 1e-6)
    one = found["metrics"]["macro_f1"]
    assert one["lowest"] == one["highest"] == polarity_run.report.metrics["test"]["macro_f1"]["value"]
    assert one["moved"] == pytest.approx(one["value"], abs=0.02)
    assert one["sensitive"] is False
    for n in (1, 10**9):
        with pytest.raises(RunError, match=f"at least 2 seeds; got {n}"):
            seeds_of(polarity_run, n)


def test_the_spread_of_a_network_is_written_beside_its_run(store, tmp_path):
    """One line a metric; the file is not replaced unasked."""
    settings = {"epochs": 2, "hidden": [4], "learning_rate": 0.01}
    made = run(RunConfig(str(store), "polarity", "mlp", settings=settings, resamples=20, out=str(tmp_path / "run")))
    done = CliRunner().invoke(app, ["seeds", str(made.folder), "--n", "3"])
    assert done.exit_code == 0
    one = json.loads((made.folder / "seeds.json").read_text())["metrics"]["weighted_f1"]
    assert one["lowest"] < one["highest"]
    assert f"over the seeds {one['lowest']:.3f} to {one['highest']:.3f}; on vectors moved by 1e-06" in done.stdout
    again = CliRunner().invoke(app, ["seeds", str(made.folder)])
    assert again.exit_code != 0
