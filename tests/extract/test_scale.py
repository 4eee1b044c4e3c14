"""Many processes, shards, much data: the same bytes whoever makes them, in bounded memory."""

from __future__ import annotations

import gc
import io
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import pipeline
from extract.corpora import Dataset, find_corpus
from extract.corpora.dataset import shard
from extract.encoders import Weights, build_encoders, find_encoders
from extract.engines.ray import ask_cluster
from extract.errors import CorpusError, DeviceError, EngineError, UnreadableError
from extract.inputs.views import Views
from extract.settings import RunSettings
from features_store import Index, MismatchError, Status, open_store
from features_store.merge import merge
from features_store.writer import read_failures

SMALL = "timm:test_efficientnet.r160_in1k"
BLOCK = "timm-test_efficientnet.r160_in1k.pool"
SETTINGS = RunSettings(device="cpu", batch_size=4, max_failed="100%", compile="off")
RAY = {"engine": "ray", "actors": 2, "actor_threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Vectors are equal to the bit for equally many threads, and small networks are fastest with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    return build_encoders(find_encoders([SMALL]), Weights("random", 0))[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory, photos) -> Path:
    """Thirty images, the eighth of them cut."""
    root = tmp_path_factory.mktemp("images")
    for at in range(30):
        name = root / "ab"[at % 2] / f"{at:02}.jpg"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(photos["chelsea"][at : at + 180, 5 * at : 5 * at + 200]).save(name)
    bad = root / "a" / "14.jpg"
    bad.write_bytes(bad.read_bytes()[:-50])
    return root


def equal(one, other, name: str = BLOCK) -> bool:
    """Vectors and states of a block, byte by byte."""
    one, other = one.blocks[name], other.blocks[name]
    return bool(one.vectors[...].tobytes() == other.vectors[...].tobytes() and np.array_equal(one.status, other.status))


# ---- slots ----------------------------------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_which_other_images_failed_or_were_done_before(images, tmp_path, network):
    reading = find_corpus("folder").read(images)
    pipeline.run(reading, [network], tmp_path / "one", SETTINGS)
    pipeline.run(reading, [network], tmp_path / "two", replace(SETTINGS, limit=7))
    pipeline.run(reading, [network], tmp_path / "two", replace(SETTINGS, limit=22))
    pipeline.run(reading, [network], tmp_path / "two", SETTINGS)
    assert equal(open_store(tmp_path / "one"), open_store(tmp_path / "two"))


# ---- shards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [Views(), Views(2, "strong")], ids=["1 view", "2 views"])
def test_shards_merged_are_the_whole(images, tmp_path, network, views):
    reading = find_corpus("folder").read(images)
    settings = replace(SETTINGS, views=views.n, policy=views.policy)
    pipeline.run(reading, [network], tmp_path / "whole", settings)
    for text in (":3", "3:18", "18:"):
        part = shard(reading, text)
        pipeline.run(part, [network], tmp_path / text.replace(":", "-"), settings)
        assert open_store(tmp_path / text.replace(":", "-")).n_images == len(part.index)
    merge([tmp_path / "18-", tmp_path / "-3", tmp_path / "3-18"], tmp_path / "merged.h5")
    whole, merged = open_store(tmp_path / "whole"), open_store(tmp_path / "merged.h5")
    assert equal(whole, merged)
    assert merged.index_digest == whole.index_digest
    assert merged.blocks[BLOCK].sealed
    assert np.array_equal(merged.labels["label"].values, whole.labels["label"].values)
    assert np.array_equal(merged.splits["default"].values, whole.splits["default"].values)


@pytest.mark.parametrize("text", ["5", "5:5", "9:3", "0:31", "-3:4", "a:b", ""])
def test_wrong_rows_are_named(images, text):
    with pytest.raises(CorpusError, match=r"names no rows of 30; write A:B with 0 <= A < B <= 30"):
        shard(find_corpus("folder").read(images), text or "x")


def test_all_rows_are_no_shard(images):
    reading = find_corpus("folder").read(images)
    assert shard(reading, "0:30") is reading


def test_shards_on_the_command_line(command_line, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command_line(
        "run", "folder", "--data", images, "--encoders", "lowlevel", "--rows", "4:6", "--views", "2", "--json"
    )
    assert code == 0
    assert '"store": "features/folder.rows-4-6"' in out
    assert open_store(tmp_path / "features" / "folder.rows-4-6").blocks["lowlevel.features"].shape[:2] == (2, 2)
    code, _, err = command_line("run", "folder", "--data", images, "--encoders", "lowlevel", "--rows", "4:99")
    assert code == 2
    assert err.startswith("error: --rows 4:99 names no rows of 30")


# ---- memory ---------------------------------------------------------------------------------------------------------


class Generated:
    """Many images from a few: nothing is kept, whatever the number."""

    def __init__(self, n_images: int, photo: np.ndarray) -> None:
        self._n_images = n_images
        self._files = []
        for at in range(4):
            file = io.BytesIO()
            Image.fromarray(photo[at : at + 250, :250]).save(file, "JPEG")
            self._files.append(file.getvalue())

    def __len__(self) -> int:
        return self._n_images

    def read(self, row: int) -> bytes:
        return self._files[row % 4]

    def modified(self, row: int) -> float:
        return float("nan")


def peak_of(action) -> float:
    """How much the process grows at most, in MiB, while something is done."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark
    before = status_line("VmRSS")
    action()
    return (status_line("VmHWM") - before) / 1024


def status_line(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the memory marks of Linux")
def test_memory_does_not_grow_with_the_corpus(tmp_path, toy, photos):
    def run(n_images: int, name: str) -> None:
        ids = np.array([f"{at}.jpg" for at in range(n_images)])
        reading = Dataset(Index(ids), Generated(n_images, photos["coffee"]))
        pipeline.run(reading, [toy], tmp_path / name, SETTINGS)

    run(200, "warm")
    small, large = peak_of(lambda: run(300, "small")), peak_of(lambda: run(3000, "large"))
    # 2,700 more images are 483 MiB of pixels.
    assert large < small + 24, (small, large)


# ---- Ray ------------------------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_named():
    with pytest.raises(EngineError, match="unknown engine 'rya'"):
        RunSettings(engine="rya")


@pytest.fixture
def _ray_is_here():
    pytest.importorskip("ray.data", reason="--engine ray needs the extra 'ray'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_ray_is_here")
def test_two_actors_make_the_same_bytes_as_this_process(images, tmp_path, network):
    others = build_encoders(find_encoders(["lowlevel", "timm:test_resnet@layer2"]), Weights("random", 0))
    reading, networks = find_corpus("folder").read(images), [network, *others]
    settings = replace(SETTINGS, views=2)
    pipeline.run(reading, networks, tmp_path / "local", settings)
    # One network is ahead, so the actors must not make its rows again.
    pipeline.run(reading, networks[1:], tmp_path / "ray", replace(settings, limit=10))
    summary = pipeline.run(reading, networks, tmp_path / "ray", replace(settings, **RAY))
    local, ray = open_store(tmp_path / "local"), open_store(tmp_path / "ray")
    for name in local.blocks:
        assert ray.blocks[name].sealed
        assert equal(local, ray, name), name
        reasons = read_failures(local.blocks[name].path)
        assert len(reasons) == 1
        assert read_failures(ray.blocks[name].path) == reasons
    assert summary.blocks[BLOCK] == {"written": 58, "truncated": 2}
    assert summary.parts["forward"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_ray_is_here")
def test_actors_that_reserve_a_gpu_are_fed_and_describe_themselves(images, tmp_path, network):
    """The cluster says that it has a GPU, and torch sees none: Ray reserves it all the same."""
    import ray

    reading = find_corpus("folder").read(images)
    pipeline.run(reading, [network], tmp_path / "local", SETTINGS)
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        settings = replace(SETTINGS, engine="ray", actors=1, actor_threads=1, device="auto")
        gpus, facts = ask_cluster(ray, settings)
        assert gpus == 1
        assert (facts.kind, facts.batch_size, facts.autocast) == ("cpu", 8, None)
        assert ask_cluster(ray, replace(settings, device="cpu"))[0] == 0
        with pytest.raises(DeviceError, match="--device cuda: "):
            ask_cluster(ray, replace(settings, device="cuda"))
        pipeline.run(reading, [network], tmp_path / "ray", settings)
    finally:
        ray.shutdown()
    assert equal(open_store(tmp_path / "local"), open_store(tmp_path / "ray"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_ray_is_here")
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read, by Linux")
def test_a_fault_of_the_disk_in_an_actor_stops_the_run(images, tmp_path):
    """Its first byte cannot be read, in any process; with `skip_unreadable` that one image is missing."""
    root = tmp_path / "images"
    shutil.copytree(images, root)
    (root / "a" / "16.jpg").unlink()
    (root / "a" / "16.jpg").symlink_to("/proc/self/mem")
    networks = build_encoders(find_encoders(["lowlevel"]), Weights("random", 0))
    settings = replace(SETTINGS, **RAY)
    reading = find_corpus("folder").read(root)
    with pytest.raises(UnreadableError, match=r"16\.jpg cannot be read: Input/output error"):
        pipeline.run(reading, networks, tmp_path / "store", settings)
    assert not open_store(tmp_path / "store").blocks["lowlevel.features"].sealed
    summary = pipeline.run(reading, networks, tmp_path / "store", replace(settings, skip_unreadable=True))
    assert summary.blocks["lowlevel.features"] == {"written": 28, "missing": 1, "truncated": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_ray_is_here")
def test_a_picture_that_was_replaced_stops_actors_before_a_row_is_written(images, tmp_path):
    """Its digest is known from an earlier run of another encoder."""
    root = tmp_path / "images"
    shutil.copytree(images, root)
    reading = find_corpus("folder").read(root)
    first, second = build_encoders(find_encoders(["lowlevel", "timm:test_resnet"]), Weights("random", 0))
    pipeline.run(reading, [first], tmp_path / "store", replace(SETTINGS, content=True))
    row = 3
    path = root / str(reading.index.ids[row])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(MismatchError, match="was another picture"):
        pipeline.run(reading, [second], tmp_path / "store", replace(SETTINGS, **RAY, limit=row + 1))
    (block,) = (one for one in open_store(tmp_path / "store").blocks.values() if "resnet" in one.name)
    assert not block.status[row].any()


def actors_of(parent: int) -> list[int]:
    """Process ids of Ray's actors under a process."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names[int(entry.name)] = (entry / "cmdline").read_text()
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue

    def below(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == parent:
                return True
        return False

    return [process for process, name in names.items() if "_Actor" in name and below(process)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_ray_is_here")
def test_an_actor_killed_in_the_middle_costs_nothing(tmp_path, tmp_path_factory, photos, network):
    root = tmp_path_factory.mktemp("many")
    (root / "a").mkdir()
    for at in range(160):
        Image.fromarray(photos["chelsea"][at % 50 : 200 + at % 50, at : at + 200]).save(root / "a" / f"{at:03}.jpg")
    (lowlevel,) = build_encoders(find_encoders(["lowlevel"]), Weights("random", 0))
    reading, networks = find_corpus("folder").read(root), [network, lowlevel]
    pipeline.run(reading, networks, tmp_path / "local", SETTINGS)
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not done.is_set() and not killed:
            written = tmp_path / "ray" / "lowlevel.features.h5"
            some = written.exists() and (open_store(written).blocks["lowlevel.features"].status == 1).any()
            for process in actors_of(os.getpid())[:1] if some else []:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        pipeline.run(reading, networks, tmp_path / "ray", replace(SETTINGS, **RAY))
    finally:
        done.set()
        killer.join()
    assert killed
    for name in (BLOCK, "lowlevel.features"):
        assert (open_store(tmp_path / "ray").blocks[name].status == Status.WRITTEN).all()
        assert equal(open_store(tmp_path / "local"), open_store(tmp_path / "ray"), name)
