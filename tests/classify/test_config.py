"""The configuration of a run: TOML, flags, both; what is refused and how it is said."""

import pytest

from classify.config import RunConfig, dump_config, load_config, shared_place
from classify.errors import ConfigError
from classify.runs.layout import lay_out
from classify.toml_text import parse_settings, toml_value
from features_store.errors import AffectoryError


def toml(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_and_flags_give_the_same_config(tmp_path):
    """A run written as a file equals the same run written as flags."""
    text = 'store = "s"\ntask = "t"\nhead = "mlp"\nblocks = ["a", "b"]\nseed = 3\n[set]\nepochs = 5\nhidden = [8, 4]\n'
    flags = {"store": "s", "task": "t", "head": "mlp", "blocks": "a, b", "seed": 3}
    flags["set"] = parse_settings(["epochs=5", "hidden=[8, 4]"])
    assert load_config(toml(tmp_path, text)) == load_config(overrides=flags)


def test_flags_win_over_the_file_and_settings_merge(tmp_path):
    """A flag replaces the file's value; options of the head are merged one by one."""
    path = toml(tmp_path, 'store = "s"\ntask = "t"\nhead = "mlp"\nseed = 3\n[set]\nepochs = 5\nbatch_size = 2\n')
    config = load_config(path, {"seed": 0, "head": None, "set": {"epochs": 9}})
    assert (config.seed, config.head, config.settings) == (0, "mlp", {"epochs": 9, "batch_size": 2})


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("epochs=300", 300),
        ("learning_rate=1e-5", 1e-5),
        ("flag=true", True),
        ("hidden=[1000, 200]", [1000, 200]),
        ("kernel=rbf", "rbf"),
        ("gamma=none", None),
        ('name="a=b"', "a=b"),
        ("text=2026-01-01x\ny=1", "2026-01-01x\ny=1"),
    ],
)
def test_settings_are_read_as_values(pair, value):
    """What is valid TOML becomes that value, the rest is text."""
    assert list(parse_settings([pair]).values()) == [value]


@pytest.mark.parametrize("pairs", [["epochs"], ["=3"], ["epochs=3", "epochs=4"]])
def test_settings_that_are_no_pairs_are_refused(pairs):
    """A pair needs a name and an equals sign, and comes once."""
    with pytest.raises(AffectoryError, match="--set"):
        parse_settings(pairs)


def test_config_survives_being_written(tmp_path):
    """What `dump_config` writes reads back equal, whatever the texts hold."""
    nasty = 'é "quoted" back\\slash\ttab \x7f 😀'
    settings = {"a": None, "b": [1, 2.5], "c": float("inf"), "d": True, "e f": nasty, "g": {"x": -1}}
    config = RunConfig(nasty, "t", "mlp", ("a.pool",), "holdout", 7, settings, "error", 50)
    assert load_config(toml(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sead = 1", "unknown key 'sead' (did you mean 'seed'?)"),
        ("seed = true", "seed is True; it takes a whole number"),
        ('seed = "1"', "seed is '1'"),
        ("seed = -1", "seed is -1"),
        ("blocks = [1]", "blocks is [1]"),
        ('blocks = ["a", "a"]', "'a' more than once"),
        ('on_failed = "skip"', "valid: drop, error"),
        ("resamples = 3", "resamples is 3"),
        ("seed = = 1", "is not valid TOML"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, line, said):
    """Each mistake is one sentence with the key, the value and what is valid."""
    path = toml(tmp_path, f'store = "s"\ntask = "t"\nhead = "mlp"\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)


def test_missing_parts_are_named(tmp_path):
    """Without a store and a task there is no run; without a file there is nothing to read."""
    with pytest.raises(ConfigError, match="lacks task;"):
        load_config(overrides={"store": "s"})
    with pytest.raises(ConfigError, match=r"cannot read the config file .*none\.toml"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("store", "folder"),
    [("features/emoji", "runs/emoji/t/h"), ("a/b-t4sa.h5", "runs/b-t4sa/t/h"), ("x/", "runs/x/t/h")],
)
def test_default_folder_follows_the_store(store, folder):
    """A run lies in runs/CORPUS/TASK/HEAD unless told otherwise."""
    assert RunConfig(store, "t", "h").folder.as_posix() == folder
    assert RunConfig(store, "t", "h", out="here").folder.as_posix() == "here"


@pytest.mark.parametrize("key", ["store", "out", "tested"])
@pytest.mark.parametrize("value", ["a\0b", "caf\udce9"])
def test_places_that_no_file_can_have(tmp_path, monkeypatch, key, value):
    """A zero byte ends a name for the system, and what is not UTF-8 stands in no report."""
    monkeypatch.chdir(tmp_path)
    given = {"store": "s", "task": "t", "head": "svm", key: value}
    with pytest.raises(
        ConfigError, match=f"^the command line: {key} is .*{'zero byte' if chr(0) in value else 'UTF-8'}"
    ):
        load_config(None, given)
    if chr(0) in value:
        with pytest.raises(ConfigError, match=f"{key} is .*zero byte"):
            load_config(toml(tmp_path, "".join(f"{k} = {toml_value(v)}\n" for k, v in given.items())))


def test_a_home_that_nobody_has(tmp_path, monkeypatch):
    """A user that is not there, or a process without a home: a place of that name, which is not there."""
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {"store": "~nobody-of-that-name/x", "task": "t", "head": "svm", "out": "~no-one/y"})
    assert (config.corpus, str(config.folder)) == ("x", "~no-one/y")
    with pytest.raises(AffectoryError, match="is not there"):
        lay_out(config)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert shared_place(str(tmp_path / "s"), tmp_path / "runs" / "r") == "../../s"


def test_a_link_that_leads_round(tmp_path):
    """It is one sentence."""
    (tmp_path / "run.toml").symlink_to("run.toml")
    with pytest.raises(ConfigError, match=r"run\.toml"):
        load_config(tmp_path / "run.toml")


def test_places_of_a_file_of_another_type_and_heads_of_odd_names(tmp_path):
    """A sentence for each; a place beside a run stays beside it."""
    for line in ("store = 3", "tested = []", 'store = "a\\u0000b"'):
        (tmp_path / "run.toml").write_text(f'{line}\ntask = "t"\nhead = "svm"\n')
        with pytest.raises(ConfigError, match=r"run\.toml"):
            load_config(tmp_path / "run.toml", {} if line[0] == "s" else {"store": "s"})
    config = RunConfig("s", "t", "../../x")
    assert config.beside("../../x-search") == config.folder.parent / "..%2F..%2Fx-search"
