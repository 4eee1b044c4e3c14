"""``extract`` as its users see it: exit codes, one sentence per mistake, tables for people and programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features_store import open_store

SMALL = "timm:test_efficientnet.r160_in1k"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "emojis"], "unknown corpus 'emojis' (did you mean 'emoji'?)"),
        (["run", "folder"], "corpus 'folder' needs one --data PATH"),
        (["run", "folder", "--data", "nowhere"], "nowhere"),
        (["run", "emoji", "--encoders", "resnet"], "unknown encoder 'resnet'"),
        (["run", "emoji", "--profile", "fusions"], "unknown profile 'fusions' (did you mean 'fusion'?)"),
        (["run", "emoji", "--profile", "card", "--encoders", "lowlevel"], "exclude each other"),
        (["run", "emoji", "--weights", "random"], "valid: auto, random:SEED"),
        (["run", "emoji", "--device", "gpu"], "unknown device 'gpu'"),
        (["run", "emoji", "--decoder", "opencv"], "unknown decoder 'opencv'; valid: pillow, simplejpeg, torchvision"),
        (["run", "emoji", "--compile", "yes"], "unknown value of --compile 'yes'; valid: auto, off, on"),
        (["run", "emoji", "--engine", "rya"], "unknown engine 'rya' (did you mean 'ray'?)"),
        (["run", "emoji", "--policy", "weak"], "unknown policy of views 'weak'"),
        (["run", "emoji", "--precision", "half"], "unknown precision 'half'"),
        (["run", "emoji", "--option", "seed"], "--option 'seed' is not KEY=VALUE"),
        (["run", "emoji", "--option", "sead=1"], "did you mean 'seed'?"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(command_line, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = command_line(*arguments)
    assert code == 2
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_a_hub_out_of_reach_writes_nothing(command_line, class_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from extract.encoders import weights

    monkeypatch.setattr(weights, "_reachable", lambda _endpoint: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    code, _, err = command_line(
        "run", "folder", "--data", class_folder, "--store", tmp_path / "store", "--encoders", "resnet50,lowlevel"
    )
    assert code == 2
    assert "hub cannot be reached" in err
    assert not (tmp_path / "store").exists()


def test_random_weights_are_warned_about_and_recorded(command_line, class_folder, tmp_path):
    store = tmp_path / "store"
    code, out, err = command_line(
        "run",
        "folder",
        "--data",
        class_folder,
        "--store",
        store,
        "--encoders",
        SMALL,
        "--weights",
        "random:7",
        "--json",
    )
    assert code == 0
    assert f"warning: {SMALL} has random weights (random:7): its vectors mean nothing" in err
    (block,) = open_store(store).blocks.values()
    assert block.passport["weights"]["source"] == "random:7"
    summary = json.loads(out)
    assert summary["blocks"] == {block.name: {"written": 8}}
    assert summary["n_done"] == 8


def test_the_default_place_is_features_corpus_and_the_summary_names_the_bottleneck(
    command_line, class_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command_line("run", "folder", "--data", class_folder, "--encoders", "lowlevel", "--limit", 3)
    assert code == 0
    assert "3 of 8 images in" in out
    assert "bottleneck: " in out
    assert "lowlevel.features: 3 written, 5 pending" in out
    assert sorted(path.name for path in Path("features/folder").glob("*.h5")) == ["index.h5", "lowlevel.features.h5"]


def test_tables_for_people_and_programs(command_line):
    _, out, _ = command_line("encoders")
    assert "clip_vit_l14" in out
    assert "profile offline: efficientnet_lite0, efficientnet_lite2, lowlevel" in out
    records = {one["name"]: one for one in json.loads(command_line("encoders", "--json")[1])}
    assert records["inception_v3"]["blocks"] == {"inception_v3.pool": [2048], "inception_v3.posteriors": [1000]}
    assert records["efficientnet_lite0"]["profiles"] == ["offline"]
    _, out, _ = command_line("corpora")
    assert "emoji" in out
    assert "CC BY-SA 4.0" in out
    corpora = {one["name"]: one for one in json.loads(command_line("corpora", "--json")[1])}
    assert corpora["emoji"]["default_profile"] == "offline"
    assert corpora["folder"]["default_profile"] == "fusion"
    assert corpora["emoji"]["options"]["min_occurrences"]["default"] == 20


def test_help_has_panels_choices_and_examples(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")
    _, out, _ = command_line("run", "--help")
    for words in ("Corpus", "Encoders", "Output", "Speed", "Views", "Scale-out", "auto|on|off", "local|ray"):
        assert words in out
    assert out.count("extract run folder --data photos") == 1
    code, out, _ = command_line("--version")
    assert code == 0
    assert out.startswith("affectory ")


def test_help_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, extract.__main__; sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
