"""Networks that are trained here: training that learns, freezes, stops and goes on; checkpoints that are encoders."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from extract.corpora import find_corpus
from extract.encoders import Weights, build_encoders, find_encoders
from extract.encoders.networks import find_architecture
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import CorpusError, EncoderError, UnfinishedError, WeightsError
from extract.fit.command import parse_options
from extract.fit.data import Examples, read_examples
from extract.fit.distortion import distort, windows
from extract.fit.losses import make_loss
from extract.fit.recipe import Recipe, layers, recipe_for
from extract.fit.training import fit
from extract.inputs.views import POLICIES, Policy
from extract.recompute import recompute
from features_store import Task, open_store
from features_store.errors import AffectoryError

BARS = Task("bars", "single", ("lying", "standing"))
SMALL = {"widths": [8, 16], "columns": 2, "dropout": 0.0}
TINY = {"depth": 8, "width": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bars(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of one bright bar on noise, (n, 3, 32, 32), and whether it stands."""
    random = np.random.default_rng(seed)
    stands = np.arange(n) % 2
    pixels = random.integers(0, 90, (n, 3, 32, 32), dtype=np.uint8)
    for image, stand in zip(pixels, stands, strict=True):
        at = random.integers(2, 26)
        (image.transpose(0, 2, 1) if stand else image)[:, at : at + 4] = 230
    return pixels, stands.astype(np.int64)


@pytest.fixture(scope="module")
def drawn() -> Examples:
    """Return 96 training and 48 validation pictures of bars."""
    parts = {"train": bars(96, 0), "validation": bars(48, 1)}
    return Examples(BARS, {name: x for name, (x, _) in parts.items()}, {name: y for name, (_, y) in parts.items()})


@pytest.fixture(scope="module")
def few(drawn) -> Examples:
    """Return a third of them, where nothing need be learned."""
    pixels, targets = ({name: x[:32] for name, x in one.items()} for one in (drawn.pixels, drawn.targets))
    return replace(drawn, pixels=pixels, targets=targets)


def train(examples: Examples, name: str, out, options: dict | None = None, how: dict | None = None, **recipe) -> dict:
    """Train an architecture by its own recipe with some changes."""
    architecture = find_architecture(name)
    changed, _, given = recipe_for(architecture, {"size": 32, **recipe})
    return fit(
        examples.task,
        lambda _: examples,
        architecture,
        out,
        recipe=changed,
        options=options,
        given=given,
        fitted_on={"corpus": "bars"},
        **(how or {}),
    )


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "recipe"),
    [
        ("resnet32", {"depth": 8}, {"epochs": 4, "batch_size": 16, "learning_rate": 0.02}),
        ("test_resnet", {}, {"epochs": 4, "batch_size": 16, "learning_rate": 0.003, "optimizer": "adam"}),
    ],
)
def test_training_learns_what_is_there(drawn, tmp_path, name, options, recipe):
    """Bars that lie or stand are told apart on images that were not trained on."""
    record = train(drawn, name, tmp_path / "net", options, **recipe)
    assert min(one["validation_loss"] for one in record["history"]) < 0.35
    (network,) = build_encoders(find_encoders([f"fit:{tmp_path / 'net'}"]), Weights())
    said = Forward(network, Cpu())(drawn.pixels["validation"])["outputs"]
    assert said.sum(axis=1) == pytest.approx(np.ones(48), abs=1e-4)
    assert (said.argmax(axis=1) == drawn.targets["validation"]).mean() > 0.85


def test_same_seed_gives_the_same_weights(few, tmp_path):
    """Everything random follows from the seed, and the global generator is left alone."""
    state = torch.get_rng_state()
    recipe = {"epochs": 1, "augment": "strong"}
    records = [train(few, "fractalnet", tmp_path / f"net{k}", SMALL, **recipe) for k in range(2)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert torch.equal(torch.get_rng_state(), state)
    other = train(few, "fractalnet", tmp_path / "other", SMALL, **recipe, seed=1)
    assert other["sha256"] != records[0]["sha256"]


def test_gradients_that_explode_are_cut(few, tmp_path):
    """At a rate where training diverges it stays finite with the gradients cut, and the error says so."""
    options = {**SMALL, "drop_path": 0.0}
    values = Task("bars", "regression", ("up",), range=(0.0, 1e6))
    targets = {name: (1e6 * y[:, None]).astype(np.float32) for name, y in few.targets.items()}
    wild = replace(few, task=values, targets=targets)
    recipe = {"epochs": 3, "batch_size": 16, "learning_rate": 1.0}
    with pytest.raises(EncoderError, match=r"diverged.*clip=1"):
        train(wild, "fractalnet", tmp_path / "wild", options, clip=None, **recipe)
    assert not (tmp_path / "wild").exists()
    record = train(wild, "fractalnet", tmp_path / "tame", options, clip=1.0, **recipe)
    assert np.isfinite([one["loss"] for one in record["history"]]).all()


def test_values_start_at_their_mean(few, tmp_path):
    """Valence and arousal: the last bias is the training mean before the first step."""
    affect = Task("va", "regression", ("valence", "arousal"), range=(1.0, 9.0))
    targets = {name: np.stack([3.0 + y, 7.0 - y], axis=1).astype(np.float32) for name, y in few.targets.items()}
    found = replace(few, task=affect, targets=targets)
    record = train(
        found, "resnet32", tmp_path / "net", {"depth": 8, "width": 4}, epochs=1, batch_size=96, learning_rate=1e-9
    )
    (network,) = build_encoders(find_encoders([f"fit:{tmp_path / 'net'}"]), Weights())
    assert network.module.dense.bias.numpy() == pytest.approx(targets["train"].mean(axis=0), abs=1e-5)
    assert record["outputs"] == ["valence", "arousal"]


def test_a_distortion_moves_pixels_and_keeps_the_batch():
    """Nothing drawn is the identity; flips alone mirror; the full range changes every image."""
    torch.manual_seed(0)
    x = 255 * torch.rand(6, 3, 24, 24)
    assert torch.allclose(distort(x, Policy()), x, atol=1e-2)
    flipped = distort(x, Policy(flips=("horizontal", "vertical")))
    mirrors = [x, x.flip(3), x.flip(2), x.flip((2, 3))]
    for at in range(6):
        assert any(torch.allclose(flipped[at], one[at], atol=1e-2) for one in mirrors)
    for policy in POLICIES.values():
        moved = distort(x.to(torch.uint8), policy)
        assert moved.shape == x.shape
        assert ((moved - x).abs().amax(dim=(1, 2, 3)) > 10).all()
        assert 0 <= moved.min() <= moved.max() <= 255


def test_shear_is_an_angle_in_radians_as_in_views():
    """A step down an image keeps its length and turns by at most the angle: a tangent would make it longer."""
    torch.manual_seed(0)
    down, across = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = torch.stack([across, down, 0 * down]).expand(40, 3, 64, 64)
    moved = distort(images, Policy(shear=0.4))
    x, y, _ = moved[:, :, 24:40, 24:40].diff(dim=2).mean(dim=(2, 3)).T
    assert torch.allclose(x**2 + y**2, torch.ones(40), atol=1e-3)
    assert 0.3 < x.abs().max() <= np.sin(0.4) + 1e-3


# ---- what is trained, and how long ----------------------------------------------------------------------------------


def test_layers_have_their_own_rates(few, tmp_path):
    """Frozen layers and their statistics stay as they were; of plain steps the lengths are as the rates."""
    moved = {}
    for name, recipe in (("last", {"trainable": 1}), ("all", {}), ("rates", {"rates": [10, 1]})):
        out, given = tmp_path / name, {"epochs": 1, "batch_size": 96, "momentum": 0.0, "learning_rate": 1e-3}
        record = train(few, "resnet32", out, {"depth": 8, "width": 4}, **given, **recipe)
        assert record["recipe"]["trainable"] == recipe.get("trainable")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            start = find_architecture("resnet32").build(2, {"depth": 8, "width": 4}, size=32)
        at = {id(p): k for k, layer in enumerate(layers(start)) for p in layer}
        layer_of = {key: at[id(p)] for key, p in start.named_parameters()}
        (network,) = build_encoders(find_encoders([f"fit:{out}"]), Weights())
        state = network.module.state_dict()
        moved[name] = {
            key: (layer_of.get(key), (state[key] - value).float().norm().item())
            for key, value in start.state_dict().items()
        }
    for key, (layer, way) in moved["last"].items():
        assert (way > 0) == (layer == 0), key
        assert (moved["all"][key][1] > 0) == (layer is not None or "running" in key or "tracked" in key), key
    assert moved["rates"]["dense.weight"][1] == pytest.approx(10 * moved["all"]["dense.weight"][1], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopped_training_goes_on_to_the_bit(few, tmp_path, optimizer):
    """The time budget ends after an epoch with the state kept; the same command with --resume ends as undisturbed."""
    recipe = {"epochs": 3, "batch_size": 32, "augment": "flip-rotate-crop", "optimizer": optimizer}
    whole = train(few, "resnet32", tmp_path / "whole", TINY, **recipe)
    for _ in range(2):
        with pytest.raises(UnfinishedError, match="--resume"):
            train(few, "resnet32", tmp_path / "net", TINY, {"seconds": 1e-6, "resume": True}, **recipe)
    assert not (tmp_path / "net").exists()
    with pytest.raises(EncoderError, match="unfinished training: go on with --resume"):
        train(few, "resnet32", tmp_path / "net", TINY, **recipe)
    with pytest.raises(EncoderError, match=r"of another training \(recipe differ"):
        train(few, "resnet32", tmp_path / "net", TINY, {"resume": True}, **{**recipe, "learning_rate": 0.5})
    assert sorted(path.name for path in (tmp_path / "net.checkpoint").iterdir()) == ["state.json", "state.safetensors"]
    record = train(few, "resnet32", tmp_path / "net", TINY, {"resume": True}, **recipe)
    assert record["sha256"] == whole["sha256"]
    assert record["history"] == whole["history"]
    assert not (tmp_path / "net.checkpoint").exists()


def test_a_damaged_state_is_refused(few, tmp_path):
    """One sentence, whatever is wrong with it."""
    recipe = {"epochs": 2, "batch_size": 96}
    with pytest.raises(UnfinishedError):
        train(few, "resnet32", tmp_path / "net", TINY, {"seconds": 1e-6}, **recipe)
    state = tmp_path / "net.checkpoint" / "state.safetensors"
    arrays = load_file(state)
    for prefix in ("optimizer.", "best.", ""):
        if prefix:
            key = next(name for name in arrays if name.startswith(prefix) and arrays[name].ndim)
            save_file({**arrays, key: torch.zeros(3)}, state)
        else:
            state.write_bytes(b"x")
        with pytest.raises(EncoderError, match="is damaged"):
            train(few, "resnet32", tmp_path / "net", TINY, {"resume": True}, **recipe)


def test_training_stops_where_the_loss_no_longer_falls(few, tmp_path):
    """Patience; the last epoch is kept where it is asked for; curves hold accuracy, also as a table."""
    recipe = {"epochs": 9, "batch_size": 96, "learning_rate": 1e-12, "momentum": 0.0, "patience": 2}
    record = train(few, "resnet32", tmp_path / "net", {"depth": 8, "width": 4}, keep="last", **recipe)
    assert len(record["history"]) == record["fitted_on"]["epochs"] < 9
    header, *lines = (tmp_path / "net" / "history.csv").read_text().splitlines()
    assert header == "epoch,learning_rate,loss,accuracy,validation_loss,validation_accuracy"
    assert len(lines) == len(record["history"])


def test_weights_and_costs_by_hand():
    """w_y (-log p_y + sum_k cost[y, k] p_k); the sides of each of several labels; polarity."""
    task = Task("mood", "single", ("joy", "anger", "neutral"))
    y, outputs = np.array([0, 0, 0, 1, 2, 2]), torch.randn(6, 3)
    p = outputs.softmax(dim=1)
    cost = torch.tensor([[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]])
    weights = torch.tensor([2 / 3, 2, 1])
    by_hand = (weights[y] * (-p[range(6), y].log() + (cost[y] * p).sum(dim=1))).mean()
    recipe = Recipe(class_weight="balanced", cost="polarity")
    assert torch.isclose(make_loss(task, y, recipe, "cpu")(outputs, torch.from_numpy(y)), by_hand)
    named = Recipe(class_weight={"joy": 2 / 3, "anger": 2.0}, cost=cost.tolist())
    assert torch.isclose(make_loss(task, y, named, "cpu")(outputs, torch.from_numpy(y)), by_hand)
    several, labels = Task("moods", "multi", ("a", "b")), np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.float32)
    loss = make_loss(several, labels, Recipe(class_weight="balanced"), "cpu")
    zeros = loss(torch.zeros(4, 2), torch.from_numpy(labels))
    assert torch.isclose(zeros, torch.tensor(2.0).log())
    for wrong, kind in (({"cost": [[0]]}, task), ({"class_weight": "x"}, several), ({"class_weight": {"x": 1}}, task)):
        with pytest.raises(EncoderError, match=r"cost is|class_weight"):
            make_loss(kind, y, Recipe(**wrong), "cpu")


def test_images_beyond_memory_are_decoded_again(bar_folder):
    """The same pixels, whether they are kept or not."""
    reading, transform = find_corpus("folder").read(bar_folder), find_architecture("resnet32").transform({"crop": 0.8})
    kept, again = (read_examples(reading, transform, task="label", split="default", memory=m) for m in (None, 0))
    assert kept.n_refused == again.n_refused
    for part, pixels in kept.pixels.items():
        assert pixels.shape[1:] == (3, 40, 40)
        rows = np.arange(len(pixels))[::-1]
        assert len(again.pixels[part]) == len(pixels)
        assert np.array_equal(again.pixels[part][rows], pixels[rows])
        assert np.array_equal(kept.targets[part], again.targets[part])
    shutil.rmtree(bar_folder)
    with pytest.raises(CorpusError, match="2 images that could be decoded at the start cannot be any more"):
        again.pixels["train"][np.arange(2)]


def test_a_limit_takes_images_from_all_over_each_part(bar_folder):
    """Evenly spaced, of training and validation alike; a part that is smaller is whole."""
    reading, transform = find_corpus("folder").read(bar_folder), find_architecture("resnet32").transform({})
    every, few, all_again = (
        read_examples(reading, transform, task="label", split="default", limit=n) for n in (None, 2, 1000)
    )
    for part, pixels in every.pixels.items():
        assert np.array_equal(all_again.pixels[part], pixels)
        assert len(few.pixels[part]) <= 2
        assert np.array_equal(few.pixels[part][0], pixels[0]) or every.n_refused
    assert len(few.pixels["train"]) + few.n_refused >= 2


def test_windows_are_cut_as_the_transform_cuts_them():
    """The middle one is the transform's crop; at random each lies inside."""
    transform = find_architecture("resnet32").transform({"crop": 0.875})
    assert (transform.resize, transform.crop) == (36, (32, 32))
    rgb = np.random.default_rng(0).integers(0, 255, (36, 36, 3), dtype=np.uint8)
    images = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].repeat(20, 1, 1, 1)
    assert np.array_equal(windows(images, 32, at_random=False)[0].numpy(), transform.apply(rgb))
    torch.manual_seed(0)
    inside = [
        image[None] == images[:1].unfold(2, 32, 1).unfold(3, 32, 1).permute(0, 2, 3, 1, 4, 5)[0].reshape(25, 3, 32, 32)
        for image in windows(images, 32, at_random=True)
    ]
    found = [int(one.flatten(1).all(dim=1).nonzero()[0]) for one in inside]
    assert len(set(found)) > 5


# ---- from a corpus to an encoder ------------------------------------------------------------------------------------


@pytest.fixture
def bar_folder(tmp_path):
    """Return a corpus of class folders, with one file that is no image."""
    pixels, stands = bars(24, 3)
    for at, (image, stand) in enumerate(zip(pixels, stands, strict=True)):
        folder = tmp_path / "images" / BARS.classes[stand]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{at:02}.png")
    for name in range(4):
        (tmp_path / "images" / "lying" / f"broken{name}.png").write_bytes(b"no image")
    return tmp_path / "images"


def test_fit_then_extract(bar_folder, command_line, tmp_path, monkeypatch):
    """`extract fit`, then `extract run --encoders fit:FOLDER`: blocks whose passport names the network."""
    asked = ["fit", "fractalnet", "--corpus", "folder", "--data", bar_folder, "--task", "label", "--json"]
    asked += ["--set", "widths=[4, 4]", "--set", "columns=2", "--set", "epochs=1", "--name", "bars"]
    code, out, err = command_line(*asked, "--out", tmp_path / "net")
    assert code == 0, err
    record = json.loads(out)
    assert "could not be decoded" in err
    assert {path.name for path in (tmp_path / "net").iterdir()} == {
        "network.json",
        "weights.safetensors",
        "history.csv",
    }
    code, _, err = command_line(*asked, "--out", tmp_path / "net")
    assert code == 2
    assert "choose another place" in err
    run = [
        "run",
        "folder",
        "--data",
        bar_folder,
        "--store",
        tmp_path / "store",
        "--encoders",
        f"fit:{tmp_path / 'net'}",
    ]
    run += ["--max-failed", "100%"]  # four of 28 files are no images
    code, _, err = command_line(*run)
    assert code == 0, err
    store = open_store(tmp_path / "store")
    assert set(store.blocks) == {"bars.pool", "bars.outputs"}
    weights = store.blocks["bars.pool"].passport["weights"]
    assert (weights["source"], weights["sha256"]) == ("fit:fractalnet", record["sha256"])
    assert weights["fitted_on"]["index_digest"] == store.index_digest
    assert weights["recipe"] == record["recipe"]
    assert str(tmp_path) not in json.dumps(store.blocks["bars.pool"].passport)
    assert store.blocks["bars.outputs"].names == ("lying", "standing")
    block, rows = store.blocks["bars.pool"], np.flatnonzero(store.usable(["bars.pool"]))[:2]
    ids = [str(store.ids[row]) for row in rows]
    asked = block.passport, ids, store.corpus, bar_folder
    with pytest.raises(WeightsError, match=r"none of networks/ here has its weights.*--network FOLDER"):
        recompute(*asked)
    (tmp_path / "networks").mkdir()
    shutil.copytree(tmp_path / "net", tmp_path / "networks" / "any")
    monkeypatch.chdir(tmp_path)
    there = block.vectors[rows, 0]
    for again in (recompute(*asked), recompute(*asked, [tmp_path / "net"])):
        np.testing.assert_allclose(np.concatenate(again), there, rtol=2e-3, atol=2e-3)


def test_the_test_part_is_never_read(bar_folder):
    """Only the images of the training and validation parts are decoded."""
    reading = find_corpus("folder").read(bar_folder)
    read = []

    class Watched:
        def __len__(self):
            return len(reading.files)

        def read(self, row):
            read.append(row)
            return reading.files.read(row)

    read_examples(
        replace(reading, files=Watched()), find_architecture("resnet32").transform({}), task="label", split="default"
    )
    assert set(reading.index.splits["default"].values[read]) == {0, 1}


@pytest.fixture(scope="module")
def checkpoint(few, tmp_path_factory):
    """Return the folder of a trained network."""
    folder = tmp_path_factory.mktemp("fit") / "net"
    train(few, "fractalnet", folder, SMALL, epochs=1, batch_size=96)
    return folder


def spoil_record(net, **values) -> None:
    """Change values of a record."""
    path = net / "network.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda net: (net / "weights.safetensors").write_bytes(b"x" * 40), "does not fit fractalnet"),
        (lambda net: (net / "weights.safetensors").unlink(), "does not fit fractalnet"),
        (lambda net: (net / "network.json").unlink(), r"holds no network.*extract fit"),
        (lambda net: (net / "network.json").write_text("{"), "cannot be read"),
        (lambda net: (net / "network.json").write_text("[" * 100_000), "cannot be read"),
        (lambda net: spoil_record(net, n_outputs="2"), "lacks n_outputs, or has"),
        (lambda net: spoil_record(net, outputs=[1]), "is damaged"),
        (lambda net: spoil_record(net, kind="other"), "unknown kind of task 'other'"),
        (lambda net: spoil_record(net, outputs=["a\x1b[31m", *"bcdefgh"], n_outputs=8), "control characters"),
        (lambda net: spoil_record(net, outputs=["a", "a"], n_outputs=2), "each once"),
        (lambda net: (net / "network.json").write_text("{}"), "is not a network of format version 1"),
    ],
)
def test_damaged_checkpoints_are_refused(checkpoint, tmp_path, spoil, words):
    """One sentence for each thing that can be wrong."""
    shutil.copytree(checkpoint, tmp_path / "net")
    spoil(tmp_path / "net")
    with pytest.raises(WeightsError, match=words):
        build_encoders(find_encoders([f"fit:{tmp_path / 'net'}"]), Weights())


def test_other_weights_under_the_same_record_are_refused(few, tmp_path):
    """The record carries the hash of the weights."""
    for seed in range(2):
        train(few, "resnet32", tmp_path / str(seed), TINY, epochs=1, batch_size=96, seed=seed)
    (tmp_path / "0" / "weights.safetensors").write_bytes((tmp_path / "1" / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="SHA-256"):
        build_encoders(find_encoders([f"fit:{tmp_path / '0'}"]), Weights())


def test_what_was_asked_wrongly_is_named(bar_folder):
    """Unknown networks, options, tasks and values: the valid ones are listed."""
    with pytest.raises(EncoderError, match="did you mean 'epochs'"):
        recipe_for(find_architecture("resnet32"), {"epoch": 3})
    with pytest.raises(EncoderError, match="counts are whole and at least 1"):
        Recipe(epochs=0)
    with pytest.raises(AffectoryError, match="is not KEY=VALUE"):
        parse_options(["epochs"])
    reading = find_corpus("folder").read(bar_folder)
    with pytest.raises(CorpusError, match="unknown task of the corpus 'bars'"):
        read_examples(reading, find_architecture("resnet32").transform({}), task="bars", split="default")
