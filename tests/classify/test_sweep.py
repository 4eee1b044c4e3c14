"""A grid of runs: each once, whatever stops it, and none twice."""

import json
import shutil

import numpy as np
import pytest

from classify.__main__ import app
from classify.config import RunConfig
from classify.errors import ConfigError, RunError
from classify.pages.tables import sweep_records, sweep_text
from classify.runs.train import run
from classify.studies.sweep import read_sweep, sweep
from features_store import BlockWriter, open_store
from features_store.errors import AffectoryError

GRID = """
store = "{store}"
resamples = 40
blocks = ["alpha.pool"]

[[grid]]
task = ["polarity", "valence"]
head = "linear"

[[grid]]
task = "polarity"
head = ["svm", "dummy"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def grid(store, tmp_path_factory):
    """Write a sweep of six runs, and return its file."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.toml"
    path.write_text(GRID.format(store=store))
    return path


@pytest.fixture(scope="module")
def finished(grid):
    """Do the sweep; return its points, and the steps of its progress."""
    points, steps = read_sweep(grid, out=grid.parent / "out"), []
    sweep(points, progress=lambda done, total: steps.append((done, total)))
    return points, steps


def written(store, tmp_path, text):
    """Write a sweep over the planted store, and return its cells."""
    path = tmp_path / "sweep.toml"
    path.write_text(f'store = "{store}"\nresamples = 40\nblocks = ["alpha.pool"]\n{text}')
    return read_sweep(path, out=tmp_path / "out")


def test_a_grid_is_counted_before_it_is_read(store, tmp_path):
    """A thousand million cells are refused at once, whatever is wrong with each."""
    values = ", ".join(map(str, range(1, 1001)))
    with pytest.raises(ConfigError, match="1,000,000,000 runs; at most 10,000"):
        written(
            store,
            tmp_path,
            f"""[[grid]]
task = "polarity"
head = "linear"
set = {{C = [{values}], alpha = [{values}], no_option = [{values}]}}
""",
        )


def times(cells):
    """Return when each report was written."""
    return {cell.digest: (cell.config.folder / "report.json").stat().st_mtime_ns for cell in cells}


def test_every_point_is_done_once_and_none_again(finished, grid):
    """The second time nothing is computed; a run that is gone is computed, and it alone."""
    (cells, steps), notes = finished, []
    assert len(cells) == 6
    assert (steps[0], steps[-1]) == ((0, 6), (6, 6))
    first = times(cells)
    sweep(read_sweep(grid, out=grid.parent / "out"), notify=notes.append)
    assert times(cells) == first
    assert notes == ["6 of 6 runs are there already"]
    shutil.rmtree(cells[2].config.folder)
    sweep(cells)
    assert [first[c.digest] == times(cells)[c.digest] for c in cells] == [True, True, False, True, True, True]


def test_an_interrupted_sweep_goes_on(grid, tmp_path, monkeypatch):
    """What was done before Ctrl-C stays, what was being done leaves nothing."""
    cells = read_sweep(grid, out=tmp_path / "out")[:2]

    def interrupt(config, **options):
        if sum(cell.done for cell in cells) == 1:
            raise KeyboardInterrupt
        return run(config, **options)

    with monkeypatch.context() as patched:
        patched.setattr("classify.runs.train.run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep(cells)
    assert sum(cell.done for cell in cells) == 1
    first = times([cell for cell in cells if cell.done])
    sweep(cells)
    assert all(cell.done for cell in cells)
    assert first.items() <= times(cells).items()


def test_a_run_of_a_sweep_is_the_run_alone(finished, store, tmp_path):
    """Same numbers as the same settings outside of a sweep."""
    cells, _ = finished
    alone = run(RunConfig(str(store), "polarity", "linear", ("alpha.pool",), resamples=40, out=str(tmp_path / "alone")))
    ours = json.loads((cells[0].config.folder / "report.json").read_text())
    assert ours["metrics"] == alone.report["metrics"]


def test_grids_combine_scalars_lists_and_options(store, tmp_path):
    """Lists of values, lists of lists, options of the head; equal cells count once, also by a default."""
    cells = written(
        store,
        tmp_path,
        '[[grid]]\ntask = "polarity"\nhead = "mlp"\nset = {hidden = [[8, 4], [6]], dropout = [0.0, 0.4], epochs = 2}\n'
        '[[grid]]\ntask = "polarity"\nhead = "mlp"\nset = {hidden = [[6]], epochs = 2}\n'
        '[[grid]]\ntask = "polarity"\nhead = "dummy"\nblocks = [["alpha.pool"], ["beta.pool", "alpha.pool"]]\n',
    )
    assert len(cells) == 6
    assert [cell.config.settings.get("hidden") for cell in cells[:4]] == [[8, 4], [8, 4], [6], [6]]
    assert cells[5].config.blocks == ("beta.pool", "alpha.pool")


def test_the_digest_follows_the_data(store, tmp_path):
    """Other labels, other vectors or other passports make other cells; another place does not."""
    copied = tmp_path / "copy"
    shutil.copytree(store, copied)

    def digest(folder, text='[[grid]]\ntask = "polarity"\nhead = "dummy"\n'):
        (cell,) = written(folder, tmp_path, text)
        return cell.digest

    first = digest(store)
    assert digest(copied) == first
    assert digest(store, '[[grid]]\ntask = "polarity"\nhead = "dummy"\nseed = 1\n') != first
    assert digest(store, '[[grid]]\ntask = "polarity"\nhead = "dummy"\nsplit = "holdout"\n') != first
    opened = open_store(copied)
    with BlockWriter(copied / "alpha.pool.h5", opened.index, opened.blocks["alpha.pool"].spec) as writer:
        writer.write(np.array([23]), np.zeros((1, 12)))
    assert digest(copied) != first


def test_a_run_that_fails_does_not_stop_the_others(store, tmp_path):
    """It is told of, the rest is done, and the sweep ends in an error."""
    text = '[[grid]]\ntask = "polarity"\nhead = "linear"\nset = {project = ["sometimes", "auto"]}\n'
    cells, notes = written(store, tmp_path, text), []
    with pytest.raises(RunError, match=r"1 of 2 runs failed.*sometimes"):
        sweep(cells, notify=notes.append)
    assert [cell.done for cell in cells] == [False, True]
    assert "project is 'sometimes'; it takes auto or never" in notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('task = "polarity"\n', r"no \[\[grid\]\]"),
        ("[grid]\nseed = [1]\n", r"no \[\[grid\]\]"),
        ('[[grid]]\ntask = "polarity"\nhead = "svm"\nsede = [0]\n', "sede"),
        ('[[grid]]\ntask = "polarity"\nhead = "svm"\nout = ["a"]\n', "out cannot be part"),
        ('[[grid]]\nhead = "svm"\n', "lacks task"),
    ],
    ids=["none", "no list", "unknown key", "out", "no task"],
)
def test_a_grid_that_makes_no_sense_is_refused(store, tmp_path, text, told):
    """Before anything is run."""
    with pytest.raises(ConfigError, match=told):
        written(store, tmp_path, text)


def test_table_and_command(finished, grid, tmp_path, monkeypatch):
    """A dry run lists what is to do; the table ranks by the validation part."""
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(app, ["sweep", str(grid), "--dry-run"])
    assert listed.stdout.count("to do") == 6
    assert not (tmp_path / "runs").exists()
    done = CliRunner().invoke(app, ["sweep", str(grid), "--out", str(grid.parent / "out")])
    assert done.exit_code == 0, done.output
    assert "polarity: 5 of 5 runs done, by weighted F1 of the validation part" in done.stdout
    assert "runs/planted/sweep/polarity" in listed.stdout
    cells, _ = finished
    assert all(record["done"] for record in sweep_records(cells))
    table = sweep_text(cells).splitlines()
    assert table[2].split()[0] in ("linear", "svm")
    assert "dummy" in table[6]


def test_all_cells_are_checked_before_the_first_runs(store, tmp_path):
    """A value out of range, an unknown task and an unknown option are told of first; the sound cell is done."""
    text = (
        '[[grid]]\ntask = ["polarity", "nonesuch"]\nhead = "linear"\nresamples = 20\nset = {C = [1, -1]}\n'
        '[[grid]]\ntask = "polarity"\nhead = "linear"\nset = {c = 1}\n'
    )
    cells, notes = written(store, tmp_path, text), []
    assert [bool(cell.problem) for cell in cells] == [False, True, True, True, True]
    with pytest.raises(RunError, match="4 of 5 runs failed"):
        sweep(cells, notify=notes.append)
    assert [cell.done for cell in cells] == [True, False, False, False, False]
    assert len(notes) == 4
    assert "C is -1; it takes a number from" in notes[0]
    assert "cannot be run" in sweep_text(cells)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("set = {C = []}", "set.C is an empty list"),
        ("task = []", "task is an empty list"),
        ("set = 3", "set is 3"),
        ("set = {C = [-1, -2]}", "C is -1"),
    ],
)
def test_a_grid_without_a_run_is_refused(store, tmp_path, grid, words):
    """An empty list, and a grid of which every cell is wrong."""
    head = "" if grid.startswith("task") else 'task = "polarity"\n'
    with pytest.raises(AffectoryError, match=words):
        written(store, tmp_path, f'[[grid]]\n{head}head = "linear"\n{grid}\n')
