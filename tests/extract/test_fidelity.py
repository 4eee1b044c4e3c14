"""Vectors against the libraries' own reference: their transform, through Pillow, eager float32, one image at a time."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from awkward import Awkward, awkward_images

from extract import pipeline
from extract.corpora import find_corpus
from extract.encoders import ENCODERS, LIBRARIES, Encoder, Tap, Weights, build_encoders, find_encoders, from_open_clip
from extract.engines import Cpu
from extract.engines.cpu import ForwardPool
from extract.engines.forward import Forward, compile_if_faster
from extract.inputs.images import make_decoder
from extract.settings import RunSettings
from features_store import open_store

MIN_COSINE = 0.9999
REAL = ("efficientnet_lite0", "efficientnet_lite2")
QUICK = ("timm:test_resnet", "timm:test_vit", "lowlevel")
NETWORKS = [name for name, one in ENCODERS.items() if one.needs_weights and one.library in ("timm", "open_clip")]


@pytest.fixture(scope="module")
def awkward(photos) -> dict[str, Awkward]:
    return awkward_images(photos["china"])


def build(name: str, resizer: str = "torchvision") -> Encoder:
    weights = Weights() if name in (*REAL, "lowlevel") else Weights("random", 0)
    return build_encoders(find_encoders([name]), weights, resizer)[0]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def compare(network: Encoder, awkward: dict[str, Awkward]) -> None:
    spec, decode = network.spec, make_decoder()
    expected = LIBRARIES[spec.builder or spec.library].reference(network)
    with ForwardPool(2) as pool:  # as in a run; passes that disturbed each other would show
        forward = Forward(network, Cpu(pool=pool))
        ours = {name: forward.start(network.prepare(decode(image.data))[None]) for name, image in awkward.items()}
        for name, image in awkward.items():
            for tap, vector in expected(image.expected).items():
                assert cosine(ours[name]()[tap][0], vector) >= MIN_COSINE, (name, tap)


@pytest.mark.parametrize("name", QUICK)
def test_vectors_are_the_librarys_own_on_awkward_images(name, awkward):
    compare(build(name), awkward)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_of_every_named_encoder_are_the_librarys_own_on_awkward_images(name, awkward):
    compare(build(name), awkward)


@pytest.mark.parametrize("decoder", ["torchvision", "pillow"])
def test_awkward_images_decode_to_the_pixels_of_pillow(decoder, awkward):
    decode = make_decoder(decoder)
    for name, image in awkward.items():
        assert np.array_equal(decode(image.data), np.asarray(image.expected)), name


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("coca_mscoco", "clip_vit_l14")])
def test_the_pillow_decoder_gives_timms_pixels_to_the_bit(name, awkward):
    import timm
    from timm.data import create_transform, resolve_data_config

    from extract.encoders import from_timm

    encoder = ENCODERS[name]
    geometry = dict(encoder.geometry)
    with torch.device("meta"):
        module = timm.create_model(encoder.architecture)

    theirs = create_transform(**resolve_data_config(geometry, model=module))
    ours, decode = from_timm.transform_of(module, "pillow", geometry), make_decoder("pillow")
    for form in ("portrait", "panorama", "tiny", "sixteen bits", "palette", "cmyk", "exif 6"):
        pixels = torch.from_numpy(ours.apply(decode(awkward[form].data)).copy())
        assert torch.equal(ours.normalise(pixels[None])[0], theirs(awkward[form].expected)), form


@pytest.mark.parametrize("name", ["coca_mscoco", "clip_vit_l14"])
def test_the_pillow_decoder_gives_open_clips_pixels_to_the_bit(name, awkward):
    import open_clip

    architecture, config = from_open_clip.find_published(ENCODERS[name].architecture)
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    keys = [key for key in ("mean", "std", "interpolation", "resize_mode") if key in config]
    theirs = open_clip.image_transform(size, is_train=False, **{key: config[key] for key in keys})
    ours, decode = (
        from_open_clip.transform_of(SimpleNamespace(image_size=size), config, "pillow"),
        make_decoder("pillow"),
    )
    for form in ("portrait", "panorama", "tiny", "sixteen bits", "palette", "cmyk", "exif 6"):
        pixels = torch.from_numpy(ours.apply(decode(awkward[form].data)).copy())
        assert torch.equal(ours.normalise(pixels[None])[0], theirs(awkward[form].expected)), form


# ---- ways of running, each against the plain one -------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    record = replace(ENCODERS["efficientnet_lite0"], taps=(Tap("pool", (1280,)), Tap("posteriors", (1000,))))
    return build_encoders([record], Weights())[0]


def test_batches_of_1_and_of_64(awkward):
    network, decode = build("timm:test_resnet"), make_decoder()
    batch = [network.prepare(decode(awkward[form].data)) for form in ("portrait", "greyscale", "palette", "exif 3")]
    sixty_four = np.stack(batch * 16)
    forward = Forward(network, Cpu())
    together = forward(sixty_four)["pool"]
    for at in (0, 1, 62, 63):
        assert cosine(forward(sixty_four[at : at + 1])["pool"][0], together[at]) >= 0.999999


@pytest.mark.skipif(not any(os.access(f"{folder}/c++", os.X_OK) for folder in os.get_exec_path()), reason="no compiler")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:test_efficientnet", "lite0"])
def test_compiled_against_eager(name, lite0, awkward):
    network = lite0 if name == "lite0" else build(name)
    decode, told = make_decoder(), []
    pixels = np.stack([network.prepare(decode(awkward[form].data)) for form in ("portrait", "palette", "exif 3")])
    compiled = compile_if_faster(network, Cpu(), 3, batch_size=len(pixels), mode="on", echo=told.append)
    assert compiled.compiled, told
    assert "is compiled first" in told[0]
    plain = Forward(network, Cpu())(pixels)
    for tap, vectors in compiled(pixels).items():
        for one, other in zip(vectors, plain[tap], strict=True):
            assert cosine(one, other) >= MIN_COSINE


def test_float16_against_float32_storage(tmp_path, class_folder, lite0):
    reading = find_corpus("folder").read(class_folder)
    found = {}
    for dtype in ("float16", "float32"):
        settings = RunSettings(device="cpu", dtype=dtype, batch_size=4)
        pipeline.run(reading, [lite0], tmp_path / dtype, settings)
        store = open_store(tmp_path / dtype)
        found[dtype] = store.matrix(["efficientnet_lite0.pool"])
        assert store.blocks["efficientnet_lite0.pool"].dtype == dtype
    for half, full in zip(found["float16"], found["float32"], strict=True):
        assert cosine(half, full) >= 0.999999
        assert np.abs(half - full).max() <= 2**-10 * np.abs(full).max()
