"""Networks trained from scratch: their sizes as published, training that learns, checkpoints that are encoders."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from extract.corpora import find_corpus
from extract.encoders import Weights, build_encoders, find_encoders
from extract.encoders.architectures import Emosepar, FractalNet, ResNet32, parameters
from extract.encoders.fitted import find_architecture
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import CorpusError, EncoderError, WeightsError
from extract.fit.command import parse_options
from extract.fit.data import Examples, read_examples
from extract.fit.training import Recipe, distort, fit, recipe_for
from features_store import Task, open_store
from features_store.errors import AffectoryError

BARS = Task("bars", "single", ("lying", "standing"))
SMALL = {"widths": [8, 16], "columns": 2, "dropout": 0.0}


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


def train(examples: Examples, name: str, out, options: dict | None = None, **recipe) -> dict:
    """Train an architecture by its own recipe with some changes."""
    architecture = find_architecture(name)
    changed, _ = recipe_for(architecture, recipe)
    return fit(examples, architecture, out, recipe=changed, options=options, fitted_on={"corpus": "bars"})


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_emosepar_has_the_published_numbers():
    """534,786 numbers, 531,138 of them trained, and layer by layer as printed."""
    network = Emosepar(2)
    assert parameters(network) == (534_786, 531_138)
    counts = [parameters(layer)[0] for layer in network.body if parameters(layer)[0]]
    printed = [864, 128, 4512, 512, 17664, 512, 34176, 1024, 68096, 1024, 133888, 2048, 267264, 2048]
    assert [*counts, parameters(network.dense)[0]] == [*printed, 1026]


def test_emosepar_has_the_published_shapes():
    """150, 148, 73, 71, 69, 34, 32, 30, 14, 12, 10: nothing is padded."""
    x, sizes = torch.zeros(1, 3, 150, 150), [150]
    with torch.no_grad():
        for layer in Emosepar(2).eval().body:
            x = layer(x)
            sizes += [x.shape[-1]] if x.shape[-1] != sizes[-1] else []
    assert sizes == [150, 148, 73, 71, 69, 34, 32, 30, 14, 12, 10]
    assert x.shape == (1, 512, 10, 10)


def test_resnet32_has_the_published_parameters():
    """0.46 million for ten classes (He et al. 2016, table 6), in closed form 464,154."""
    assert parameters(ResNet32(10))[1] == 464_154
    assert sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in ResNet32(10).modules()) == 32


def test_fractal_columns_double():
    """A block of three columns has 1 + 2 + 4 convolutions, and is as deep as the longest."""
    network = FractalNet(8, widths=(4, 6), columns=3)
    for block, n_in, n_out in zip(network.body.blocks, (3, 4), (4, 6), strict=True):
        assert [len(column) for column in block.columns] == [1, 2, 4]
        first, others = n_in * n_out * 9 + 2 * n_out, n_out * n_out * 9 + 2 * n_out
        assert parameters(block)[1] == 3 * first + 4 * others
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 8)


def test_drop_path_drops_in_training_only():
    """Evaluation is the mean of all columns and repeats; training passes differ; no path, no chance."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    network = FractalNet(2, widths=(4, 4), columns=3, drop_path=0.5, dropout=0.0)
    assert torch.equal(network.eval()(x), network(x))
    network.train()
    assert len({network(x).sum().item() for _ in range(8)}) > 3
    steady = FractalNet(2, widths=(4, 4), columns=3, drop_path=0.0, dropout=0.0).train()
    assert torch.equal(steady(x), steady(x))


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "recipe"),
    [
        ("fractalnet", SMALL, {"epochs": 6, "batch_size": 16, "learning_rate": 0.05}),
        ("resnet32", {}, {"epochs": 4, "batch_size": 16, "learning_rate": 0.02}),
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


def test_same_seed_gives_the_same_weights(drawn, tmp_path):
    """Everything random follows from the seed, and the global generator is left alone."""
    state = torch.get_rng_state()
    recipe = {"epochs": 1, "augment": True}
    records = [train(drawn, "fractalnet", tmp_path / f"net{k}", SMALL, **recipe) for k in range(2)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert torch.equal(torch.get_rng_state(), state)
    other = train(drawn, "fractalnet", tmp_path / "other", SMALL, **recipe, seed=1)
    assert other["sha256"] != records[0]["sha256"]


def test_gradients_that_explode_are_cut(drawn, tmp_path):
    """At a rate where training diverges it stays finite with the gradients cut, and the error says so."""
    options = {**SMALL, "drop_path": 0.0}
    values = Task("bars", "regression", ("up",), range=(0.0, 1e6))
    targets = {name: (1e6 * y[:, None]).astype(np.float32) for name, y in drawn.targets.items()}
    wild = replace(drawn, task=values, targets=targets)
    recipe = {"epochs": 3, "batch_size": 16, "learning_rate": 1.0}
    with pytest.raises(EncoderError, match=r"diverged.*clip=1"):
        train(wild, "fractalnet", tmp_path / "wild", options, clip=None, **recipe)
    assert not (tmp_path / "wild").exists()
    record = train(wild, "fractalnet", tmp_path / "tame", options, clip=1.0, **recipe)
    assert np.isfinite([one["loss"] for one in record["history"]]).all()


def test_values_start_at_their_mean(drawn, tmp_path):
    """Valence and arousal: the last bias is the training mean before the first step."""
    affect = Task("va", "regression", ("valence", "arousal"), range=(1.0, 9.0))
    targets = {name: np.stack([3.0 + y, 7.0 - y], axis=1).astype(np.float32) for name, y in drawn.targets.items()}
    found = replace(drawn, task=affect, targets=targets)
    record = train(found, "resnet32", tmp_path / "net", epochs=1, batch_size=96, learning_rate=1e-9)
    (network,) = build_encoders(find_encoders([f"fit:{tmp_path / 'net'}"]), Weights())
    assert network.module.dense.bias.numpy() == pytest.approx(targets["train"].mean(axis=0), abs=1e-5)
    assert record["outputs"] == ["valence", "arousal"]


def test_a_distortion_moves_pixels_and_keeps_the_batch():
    """Nothing drawn is the identity; flips alone mirror; the full range changes every image."""
    torch.manual_seed(0)
    x = torch.rand(6, 3, 24, 24)
    assert torch.allclose(distort(x, rotation=0, shift=0, shear=0, scale=0, flips=False), x, atol=1e-5)
    flipped = distort(x, rotation=0, shift=0, shear=0, scale=0)
    mirrors = [x, x.flip(3), x.flip(2), x.flip((2, 3))]
    for at in range(6):
        assert any(torch.allclose(flipped[at], one[at], atol=1e-4) for one in mirrors)
    moved = distort(x)
    assert moved.shape == x.shape
    assert ((moved - x).abs().amax(dim=(1, 2, 3)) > 0.05).all()


def test_shear_is_an_angle_in_radians_as_in_views():
    """A step down an image keeps its length and turns by at most the angle: a tangent would make it longer."""
    torch.manual_seed(0)
    down, across = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = torch.stack([across, down, 0 * down]).expand(40, 3, 64, 64)
    moved = distort(images, rotation=0, shift=0, shear=0.4, scale=0, flips=False)
    x, y, _ = moved[:, :, 24:40, 24:40].diff(dim=2).mean(dim=(2, 3)).T
    assert torch.allclose(x**2 + y**2, torch.ones(40), atol=1e-3)
    assert 0.3 < x.abs().max() <= np.sin(0.4) + 1e-3


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


def test_fit_then_extract(bar_folder, command_line, tmp_path):
    """`extract fit`, then `extract run --encoders fit:FOLDER`: blocks whose passport names the network."""
    asked = ["fit", "fractalnet", "--corpus", "folder", "--data", bar_folder, "--task", "label", "--json"]
    asked += ["--set", "widths=[4, 4]", "--set", "columns=2", "--set", "epochs=1", "--name", "bars"]
    code, out, err = command_line(*asked, "--out", tmp_path / "net")
    assert code == 0, err
    record = json.loads(out)
    assert "could not be decoded" in err
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"network.json", "weights.safetensors"}
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

    read_examples(replace(reading, files=Watched()), find_architecture("resnet32"), task="label", split="default")
    assert set(reading.index.splits["default"].values[read]) == {0, 1}


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
def test_damaged_checkpoints_are_refused(drawn, tmp_path, spoil, words):
    """One sentence for each thing that can be wrong."""
    train(drawn, "fractalnet", tmp_path / "net", SMALL, epochs=1, batch_size=96)
    spoil(tmp_path / "net")
    with pytest.raises(WeightsError, match=words):
        build_encoders(find_encoders([f"fit:{tmp_path / 'net'}"]), Weights())


@pytest.mark.parametrize(
    "options", [{"columns": 40}, {"widths": [10**7]}, {"widths": []}, {"dropout": "x"}, {"drop_path": float("nan")}]
)
def test_options_that_would_be_built_for_ever_are_refused(options):
    """Each option of an architecture has a range, whoever gives it."""
    with pytest.raises(EncoderError, match=r"of fractalnet is a number from 0 to"):
        find_architecture("fractalnet").build(2, options)


def test_other_weights_under_the_same_record_are_refused(drawn, tmp_path):
    """The record carries the hash of the weights."""
    for seed in range(2):
        train(drawn, "fractalnet", tmp_path / str(seed), SMALL, epochs=1, batch_size=96, seed=seed)
    (tmp_path / "0" / "weights.safetensors").write_bytes((tmp_path / "1" / "weights.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="SHA-256"):
        build_encoders(find_encoders([f"fit:{tmp_path / '0'}"]), Weights())


def test_what_was_asked_wrongly_is_named(bar_folder):
    """Unknown networks, options, tasks and values: the valid ones are listed."""
    with pytest.raises(EncoderError, match="did you mean 'emosepar'"):
        find_architecture("emosepa")
    with pytest.raises(EncoderError, match="did you mean 'epochs'"):
        recipe_for(find_architecture("resnet32"), {"epoch": 3})
    with pytest.raises(EncoderError, match="counts are at least 1"):
        Recipe(epochs=0)
    with pytest.raises(AffectoryError, match="is not KEY=VALUE"):
        parse_options(["epochs"])
    with pytest.raises(EncoderError, match="cannot be built"):
        find_architecture("fractalnet").build(2, {"widths": [0.5]})
    reading = find_corpus("folder").read(bar_folder)
    with pytest.raises(CorpusError, match="unknown task of the corpus 'bars'"):
        read_examples(reading, find_architecture("resnet32"), task="bars", split="default")
