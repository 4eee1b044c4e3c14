"""Forward passes side by side: the same bytes, in order, in buffers that nobody else fills meanwhile."""

from __future__ import annotations

import ctypes
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from extract import pipeline
from extract.corpora import find_corpus
from extract.encoders import Encoder, Weights, build_encoders, find_encoders
from extract.encoders.spec import EncoderSpec, Tap
from extract.engines import Cpu, local
from extract.engines.cpu import MOST_PASSES, ForwardPool, keep_freed_memory
from extract.engines.forward import Forward
from extract.settings import RunSettings
from features_store import open_store


@pytest.fixture(scope="module")
def network() -> Encoder:
    (built,) = build_encoders(find_encoders(["efficientnet_lite0"]), Weights("random", 0))
    return built


def batches_for(network: Encoder, n: int, size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, *network.input_shape), dtype=np.uint8) for _ in range(n)]


def test_streams_give_the_bytes_of_one_pass_after_another(network):
    batches = batches_for(network, 9, 2)
    with ForwardPool(1) as one, ForwardPool(2) as several:
        # Two threads of one stream and one thread of each of two cut a layer differently; here both have one.
        alone, beside = Forward(network, Cpu(pool=one)), Forward(network, Cpu(pool=several))
        one.submit(lambda: __import__("torch").set_num_threads(1)).result()
        waiting = []
        for batch in batches:
            buffer = beside.buffer(2)
            buffer[:] = batch
            waiting.append(beside.start(buffer))
        found = [wait()["pool"] for wait in waiting]
        for batch, vectors in zip(batches, found, strict=True):
            assert alone(batch)["pool"].tobytes() == vectors.tobytes()


class Gate:
    """A network whose passes wait until they are let through, and then answer with the first pixel of each image."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)

    def network(self) -> Encoder:
        import torch

        gate = self

        class Module(torch.nn.Module):
            def forward(self, x):
                gate.begun.release()
                assert gate.open.wait(30)
                return x[:, 0, 0, :1].float()

        encoder = EncoderSpec("gate", "", "affectory", "", (Tap("first", (1,)),), needs_weights=False)
        return Encoder(
            encoder, lambda rgb: rgb, (3, 8, 8), {"first": (1,)}, {}, {}, input_dtype="uint8", module=Module(),
            outputs=lambda module, x: {"first": module(x)},
        )  # fmt: skip


def test_a_buffer_is_given_out_again_only_once_its_batch_was_read():
    gate = Gate()
    with ForwardPool(2) as pool:
        forward = Forward(gate.network(), Cpu(pool=pool))
        assert forward.n_slots == 3
        buffers, waiting = [], []
        for value in (10, 20, 30):
            buffers.append(forward.buffer(1))
            buffers[-1][:] = value
            waiting.append(forward.start(buffers[-1]))
        assert len({buffer.ctypes.data for buffer in buffers}) == 3
        assert gate.begun.acquire(timeout=30)
        assert gate.begun.acquire(timeout=30)  # two run at one time
        assert not gate.begun.acquire(timeout=0.2)  # and no third one
        asked = threading.Event()

        def overwrite() -> None:
            again = forward.buffer(1)
            assert again.ctypes.data == buffers[0].ctypes.data
            again[:] = 99
            asked.set()

        eager = threading.Thread(target=overwrite)
        eager.start()
        assert not asked.wait(0.3)
        gate.open.set()
        assert asked.wait(30)
        eager.join()
        assert [int(wait()["first"][0, 0]) for wait in waiting] == [10, 20, 30]


def test_each_stream_hears_the_layers_of_its_own_pass(photos):
    (listened,) = build_encoders(find_encoders(["timm:test_efficientnet@blocks.2"]), Weights("random", 0))
    (tap,) = listened.shapes
    images = np.stack([listened.prepare(photo) for photo in photos.values()])
    images = images[: len(images) // 2 * 2]
    expected = Forward(listened, Cpu())(images)[tap]
    both = threading.Barrier(2, timeout=30)

    def meet(*_):
        both.wait()

    hook = listened.module.conv_head.register_forward_hook(meet)
    with ForwardPool(2) as pool:
        forward = Forward(listened, Cpu(pool=pool))
        waiting = [forward.start(image[None]) for image in images]  # none reads before two have passed the layer
        found = np.concatenate([wait()[tap] for wait in waiting])
    hook.remove()
    assert np.allclose(found, expected, atol=1e-5)
    assert expected.std(axis=0).max() > 1e-2  # the images differ


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_listening_is_compiled_once_for_all_streams(photos):
    import torch

    (listened,) = build_encoders(find_encoders(["timm:test_resnet@layer2"]), Weights("random", 0))
    (tap,) = listened.shapes
    images = [listened.prepare(photo) for photo in photos.values()] * 4
    expected = np.concatenate([Forward(listened, Cpu())(image[None])[tap] for image in images])
    with ForwardPool(2) as pool, torch.compiler.set_stance("default"):
        forward = Forward(listened, Cpu(pool=pool), compiled=True)
        forward(images[0][None])
        torch.compiler.set_stance("fail_on_recompile")
        waiting = [forward.start(image[None]) for image in images]
        found = np.concatenate([wait()[tap] for wait in waiting])
    assert np.allclose(found, expected, atol=1e-4)


def test_an_error_in_a_stream_comes_out_where_the_vectors_are_asked_for(network):
    def fail(_module, _x):
        raise FloatingPointError("no such layer")

    broken = replace(network, outputs=fail)
    with ForwardPool(2) as pool:
        forward = Forward(broken, Cpu(pool=pool))
        wait = forward.start(forward.buffer(1))
        forward.buffer(1)
        with pytest.raises(FloatingPointError, match="no such layer"):
            wait()


def test_processors_are_shared_out_among_the_streams(monkeypatch):
    import torch

    for n_threads, n_streams, each in ((1, 1, 1), (2, 2, 1), (3 * MOST_PASSES, MOST_PASSES, 3)):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        given = []
        monkeypatch.setattr(torch, "set_num_threads", given.append)
        with ForwardPool() as pool:
            assert pool.n == n_streams
            pool.submit(lambda: None).result()
        assert given == [each, n_threads]


def test_threads_that_are_made_later_are_not_held_to_a_share():
    import torch

    before = torch.get_num_threads()
    with ForwardPool(2) as pool:
        assert pool.submit(torch.get_num_threads).result() <= max(1, before // 2)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


def test_a_run_is_the_same_whatever_the_number_of_streams(class_folder, tmp_path, network, monkeypatch):
    reading = find_corpus("folder").read(class_folder)
    settings = RunSettings(device="cpu", batch_size=2)
    found = []
    for n in (1, 3):
        monkeypatch.setattr(local, "ForwardPool", lambda n=n: ForwardPool(n))
        __import__("torch").set_num_threads(1)
        pipeline.run(reading, [network], tmp_path / str(n), settings)
        __import__("torch").set_num_threads(2)
        found.append(np.array(open_store(tmp_path / str(n)).blocks[network.spec.block("pool")].vectors).tobytes())
    assert found[0] == found[1]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not the GNU one")
def test_a_pass_finds_the_memory_of_the_last_one_again(network):
    import resource

    forward, (batch,) = Forward(network, Cpu()), batches_for(network, 1, 16)
    for _ in range(2):
        forward(batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        forward(batch)
    pages = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 3
    # The largest activation alone, 16 x 96 x 112 x 112 numbers, is 18,816 pages, and used to be found anew.
    assert pages < 2000
    assert keep_freed_memory()  # last, so that it is the forward pass that has asked for it
