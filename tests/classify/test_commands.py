"""The commands about presets, other corpora and searches."""

import json


def test_presets_are_listed(classify):
    """As text with corpus, head and result; as JSON with every rate; one of them whole."""
    code, out, _ = classify("presets")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.strip().startswith("resnet50-sgd ")]
    assert "b-t4sa-tfm · polarity" in line
    assert "accuracy 0.4958 (test)" in line
    records = json.loads(classify("presets", "--json")[1])
    assert len(records) == 36
    (emosepar,) = [one for one in records if one["name"] == "emosepar"]
    assert emosepar["paper"]["also"]["rmse/arousal"] == 1.55
    assert json.loads(classify("presets", "emosepar")[1]) == emosepar
    code, _, err = classify("presets", "emosepa")
    assert code == 2
    assert "did you mean 'emosepar'" in err


def test_a_preset_runs_on_other_blocks_and_quickly(classify, store):
    """Flags win over the preset; the quick run has a place of its own."""
    flags = ["--task", "polarity", "--blocks", "alpha.pool"]
    code, out, err = classify("run", store, "--preset", "resnet50-adam", *flags, "--quick")
    assert code == 0, err
    assert "wrote runs/planted/polarity/resnet50-adam-quick" in out
    assert "is no result" in out
    code, _, err = classify("run", store, "--preset", "resnet50-sgd", "--quick")
    assert code == 2
    assert "unknown block 'resnet50.pool'" in err


def test_a_budget_that_ends_and_is_resumed(classify, store, tmp_path):
    """Exit code 3, a state, no run; the same command again is refused, with --resume it ends in a run."""
    asked = ["run", store, "--task", "polarity", "--head", "mlp", "--blocks", "alpha.pool", "--set", "epochs=120"]
    asked += ["--set", "patience=none", "--set", "hidden=[4]"]
    code, _, err = classify(*asked, "--time-budget", "0.05s")
    assert code == 3
    assert "run the same command with --resume" in err
    assert not (tmp_path / "runs/planted/polarity/mlp").exists()
    code, _, err = classify(*asked, "--time-budget", "1h")
    assert code == 2
    assert "unfinished training" in err
    assert classify(*asked, "--resume")[0] == 0
    report = json.loads((tmp_path / "runs/planted/polarity/mlp/report.json").read_text())
    assert [one["epoch"] for one in report["history"]] == list(range(1, 121))
    assert classify(*asked, "--time-budget", "soon")[0] == 2


def test_reproduce_and_evaluate_and_search(classify, store, polarity_run, tmp_path):
    """Each prints its table, or one sentence."""
    code, out, _ = classify("reproduce", "mediaeval21", "--store", store, "--quick", "--out", "table.json")
    assert code == 0
    assert out.count("not run: ") == 6
    assert json.loads((tmp_path / "table.json").read_text())[0]["reproduction"] is False
    assert classify("reproduce", "mediaeval21", "--store", store, "--out", "table.json")[0] == 2
    for name in ("evaluate", "test"):  # the second is the old name
        code, _, err = classify(name, polarity_run.folder, store)
        assert code == 2
        assert "needs other ones" in err
    assert "--map 'joy' is not KEY=VALUE" in classify("evaluate", polarity_run.folder, store, "--map", "joy").err
    asked = ["--task", "polarity", "--head", "svm", "--trials", 1, "--blocks", "alpha.pool"]
    code, out, err = classify("search", store, *asked)
    assert code == 0, err
    assert "wrote runs/planted/polarity/svm-search/best" in out
    assert "best of 1 trials" in err


def test_the_file_to_make_is_no_folder(classify, polarity_run, tmp_path):
    """Each command that makes a file refuses a name that ends as that of a folder, and makes nothing."""
    for words in (["bundle", polarity_run.folder], ["submit", polarity_run.folder], ["report", polarity_run.folder]):
        code, _, err = classify(*words, "--out", f"{tmp_path}/new/")
        assert (code, "names a folder" in err) == (2, True), words
    assert not (tmp_path / "new").exists()
