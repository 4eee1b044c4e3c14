"""The road of a GPU on a stand-in: what runs on it, what it prints, what it dies of, how it is recorded."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from late import Late

from extract.engines import DEVICES, Mps, Xpu, choose_device, local
from extract.errors import DeviceError
from extract.progress import find_bottleneck
from features_store import open_store

SMALL = "timm:test_efficientnet"
BLOCKS = ("timm-test_efficientnet.pool", "lowlevel.features")


@pytest.fixture
def run(command_line, class_folder, tmp_path, monkeypatch):
    """Extract the eight images on a device; returns exit code, standard error, and the store."""

    def go(device=None, *more, encoders=f"{SMALL},lowlevel", name="store", rows=()):
        if device is not None:
            monkeypatch.setitem(DEVICES, "cuda", device)
        where = ("--device", "cuda") if device is not None else ("--device", "cpu")
        code, _, err = command_line(
            *("run", "folder", "--data", class_folder, "--store", tmp_path / name, "--encoders", encoders),
            *("--weights", "random:0", "--compile", "off", *where, *more, *rows),
        )
        return code, err, tmp_path / name

    return go


def vectors(store) -> dict[str, bytes]:
    return {name: block.vectors[...].tobytes() for name, block in open_store(store).blocks.items()}


def device(**attributes) -> type[Late]:
    return type("Late", (Late,), attributes)


def test_encoders_with_and_without_a_network_give_the_bytes_of_the_cpu(run):
    # Eight batches through two slots: one that is lent again before its batch has left it holds another image.
    code, err, late = run(device(delay=0.05), "--batch-size", 1)
    assert code == 0, err
    code, err, plain = run(None, "--batch-size", 1, name="cpu")
    assert code == 0, err
    assert vectors(late) == vectors(plain)
    assert set(vectors(late)) == set(BLOCKS)


def test_encoders_without_a_network_run_alone(run):
    code, err, store = run(Late, encoders="lowlevel")
    assert code == 0, err
    assert open_store(store).blocks["lowlevel.features"].sealed


def test_the_run_says_where_and_how_it_computes_before_the_first_image(run):
    _, err, _ = run(Late)
    line = next(line for line in err.splitlines() if line.startswith("cuda:0"))
    assert re.fullmatch(
        r"cuda:0 \(Late, 1 GiB\): float32, batches of 4, \d+ decoder threads, "
        r"about \d+\.\d GiB of memory and 0\.2 GiB of the device's",
        line,
    )
    _, err, _ = run(None, name="cpu")
    assert re.search(
        r"^cpu \(\S+, \d+ processors\): float32, batches of 8, \d+ decoder threads, about \d+\.\d GiB of memory$",
        err,
        re.MULTILINE,
    )


def test_out_of_memory_halves_the_batch_of_a_new_block_once(run):
    code, err, store = run(device(fits=2))
    assert code == 0, err
    assert "has not enough memory for this batch (CUDA out of memory. Tried to allocate 2.00 GiB.)" in err
    assert "; 2 is tried" in err
    assert open_store(store).blocks[BLOCKS[0]].passport["environment"]["batch_size"] == 2
    code, err, again = run(device(fits=1), name="smaller")  # half of 4 does not fit either
    assert code == 1
    assert err.rstrip().splitlines()[-1].endswith("give a smaller --batch-size")
    assert "Traceback" not in err
    assert not open_store(again).blocks


def test_out_of_memory_never_changes_the_batch_of_a_block_that_has_rows(run):
    assert run(Late, "--limit", 3)[0] == 0
    code, err, store = run(device(fits=2))
    assert code == 1
    assert "is tried" not in err
    assert open_store(store).blocks[BLOCKS[0]].status[:3].all()
    assert run(device(fits=4))[0] == 0


def test_a_halved_batch_is_kept_when_the_command_is_repeated(run):
    tight = device(fits=2)
    assert run(tight, "--limit", 3)[0] == 0
    code, err, store = run(tight)
    assert code == 0, err
    assert open_store(store).blocks[BLOCKS[0]].passport["environment"]["batch_size"] == 2


@pytest.mark.parametrize("at", [2, 3])
def test_a_device_that_dies_ends_in_one_sentence_and_the_same_command_resumes(run, at):
    code, err, store = run(device(dies_at=at), "--batch-size", 2)
    assert code == 1
    assert "Traceback" not in err
    last = err.rstrip().splitlines()[-1]
    assert last.startswith(
        "error: the forward pass failed on cuda:0 (Late, 1 GiB): CUDA error: an illegal memory access"
    )
    assert run(Late, "--batch-size", 2)[0] == 0
    assert vectors(store) == vectors(run(Late, "--batch-size", 2, name="undisturbed")[2])


def test_another_device_or_batch_size_is_said_once_and_recorded(run):
    run(None, "--limit", 3)
    code, err, store = run(Late)
    assert code == 0, err
    said = [line for line in err.splitlines() if line.startswith(f"{SMALL}: begun with / continued with")]
    assert len(said) == 1
    assert "environment.batch_size: 8 / 4" in said[0]
    assert "environment.device: 'cpu' / 'cuda'" in said[0]
    block = open_store(store).blocks[BLOCKS[0]]
    found = block.passport["environment"]["any of"]
    assert sorted((one["device"], one["batch_size"]) for one in found) == [("cpu", 8), ("cuda", 4)]
    assert block.sealed
    assert open_store(store).blocks[BLOCKS[1]].sealed
    again = run(Late)[1]
    assert "begun with" not in again  # nothing is left to do


def test_vectors_written_before_stay_as_they_are_when_the_passport_grows(run):
    run(None, "--limit", 5)
    _, _, store = run(Late, "--limit", 6, name="store")
    block = open_store(store).blocks[BLOCKS[0]]
    _, _, plain = run(None, name="plain")
    expected = open_store(plain).blocks[BLOCKS[0]]
    assert block.vectors[:5].tobytes() == expected.vectors[:5].tobytes()
    assert block.status[:, 0].tolist() == [1] * 6 + [0] * 2


# ---- devices that are compared with the CPU -------------------------------------------------------------------------


def twin(base, **attributes) -> type:
    """Return the class of a device whose hardware is the CPU."""
    there = {
        "address": "cpu",
        "problem": classmethod(lambda cls, index=0: None),
        "name": lambda self: f"{self.kind} (twin)",
        "identity": lambda self: {"device": self.kind, "device_name": "twin"},
        "memory_used": lambda self: 2**20,
        "batch_size": 4,
    }
    return type("Twin", (base,), {**there, **attributes})


@pytest.mark.parametrize("base", [Mps, Xpu])
def test_copies_that_block_give_the_bytes_of_the_cpu(run, monkeypatch, base):
    monkeypatch.setitem(DEVICES, base.kind, twin(base))
    code, err, store = run(None, "--device", base.kind, "--batch-size", 1)
    assert code == 0, err
    assert f"{base.kind} (twin): float32, batches of 1" in err
    assert vectors(store) == vectors(run(None, "--batch-size", 1, name="cpu")[2])
    assert open_store(store).blocks[BLOCKS[0]].passport["environment"]["device"] == base.kind


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_wrong_vectors_of_a_device_are_refused_before_the_first_row(run, monkeypatch, factor):
    def start(self, function, batch):
        return Mps.start(self, lambda pixels: [factor * one for one in function(pixels)], batch)

    monkeypatch.setitem(DEVICES, "mps", twin(Mps, start=start))
    code, err, store = run(None, "--device", "mps")
    assert code == 2
    last = err.rstrip().splitlines()[-1]
    assert last.startswith(
        f"error: mps (twin) gives wrong vectors: the first batch of {SMALL} differs from the CPU by "
    )
    assert last.endswith("of its length in pool, and at most 0.01 may; give --device cpu")
    assert not open_store(store).blocks[BLOCKS[0]].status[...].any()
    assert run(None)[0] == 0


def test_auto_takes_the_first_device_that_can_be_used(monkeypatch):
    monkeypatch.setitem(DEVICES, "cuda", twin(Late, problem=classmethod(lambda cls, index=0: "none")))
    monkeypatch.setitem(DEVICES, "mps", twin(Mps))
    assert choose_device("auto").kind == "mps"


# ---- a GPU that is there and cannot be used -------------------------------------------------------------------------


@pytest.fixture
def shown_gpu(tmp_path, monkeypatch):
    """A driver's program that shows a GPU which torch cannot use."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -L ]; then echo "GPU 0: NVIDIA T4 (UUID: GPU-1)"; '
        'else echo "| NVIDIA-SMI 535.1  Driver Version: 535.1  CUDA Version: 12.7 |"; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if choose_device("auto").kind == "cuda":
        pytest.skip("this machine has a GPU that can be used")


@pytest.mark.usefixtures("shown_gpu")
def test_a_short_run_warns_and_goes_on(run):
    code, err, _ = run(None, "--device", "auto")
    assert code == 0
    warned = [line for line in err.splitlines() if line.startswith("warning: NVIDIA T4 is visible here")]
    assert len(warned) == 1
    assert "pip install --force-reinstall torch torchvision --index-url" in warned[0]
    assert warned[0].endswith("/cu126; the CPU is used instead")  # the newest that a driver for 12.7 can run


@pytest.mark.usefixtures("shown_gpu")
def test_a_long_run_asks_first(run, monkeypatch):
    monkeypatch.setattr(local, "PATIENCE", 0.0)
    code, err, store = run(None, "--device", "auto")
    assert code == 2
    last = err.rstrip().splitlines()[-1]
    assert last.startswith("error: NVIDIA T4 is visible here and cannot be used")
    assert "pip install" in last
    assert "--device cpu" in last
    assert not open_store(store).blocks
    assert run(None)[0] == 0  # --device cpu


@pytest.mark.usefixtures("shown_gpu")
def test_hiding_the_gpu_is_asking_for_the_cpu(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, err, _ = run(None, "--device", "auto")
    assert code == 0
    assert "warning: NVIDIA" not in err


@pytest.mark.parametrize("name", ["cpu:1", "cuda:x", "cuda:", "gpu"])
def test_a_device_that_does_not_exist_is_named(name):
    with pytest.raises(DeviceError, match="valid: auto, cpu, cuda, cuda:N, cuda:N,M, mps, xpu"):
        choose_device(name)


def test_a_precision_that_the_device_cannot_compute_is_a_sentence(run):
    code, err, _ = run(Late, "--precision", "bfloat16")
    assert code == 2
    assert "--precision bfloat16 is not possible on cuda:0 (Late, 1 GiB); valid there: float32, float16" in err


# ---- what is named the bottleneck -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"wait for images": 9, "wait for the device": 1, "decode": 8, "read": 3, "forward": 30}, "decode"),
        ({"wait for images": 9, "decode": 2, "read": 8, "forward": 30}, "read"),
        ({"wait for images": 1, "wait for the device": 9, "decode": 90}, "forward"),
        ({"wait for the writer": 9, "wait for vectors": 8, "write": 1}, "forward"),
        ({"wait for the writer": 9, "wait for vectors": 1, "write": 8}, "write"),
    ],
)
def test_waits_are_compared_with_waits(parts, expected):
    assert find_bottleneck(parts, n_decoders=2, n_readers=4) == expected


def test_json_has_the_parts(run, command_line, class_folder, tmp_path):
    code, out, _ = command_line(
        *("run", "folder", "--data", class_folder, "--store", tmp_path / "json", "--encoders", SMALL, "--json"),
        *("--weights", "random:0", "--compile", "off", "--device", "cpu"),
    )
    assert code == 0
    parts = json.loads(out)["parts"]
    assert {"read", "decode", "transform", "forward", "write", "wait for images", "wait for the device"} <= set(parts)
    assert np.isfinite(list(parts.values())).all()
