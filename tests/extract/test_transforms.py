"""The transforms against the libraries' own, through Pillow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from extract.encoders import Weights, build_encoders, find_encoders, from_open_clip, from_timm
from extract.encoders.networks import find_architecture
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import EncoderError
from extract.inputs.transforms import Transform


@pytest.fixture(scope="module")
def shapes(photos) -> dict[str, np.ndarray]:
    """One photograph in awkward shapes."""
    photo = Image.fromarray(photos["china"])
    sizes = {
        "landscape": (640, 427),
        "portrait": (301, 777),
        "panorama": (1200, 120),
        "tiny": (20, 13),
        "large": (3000, 2000),
    }
    return {name: np.asarray(photo.resize(size)) for name, size in sizes.items()}


CONFIGS = [
    "efficientnet_b2.ra_in1k",
    "resnet152.tv_in1k",
    "inception_v3.tv_in1k",
    "vit_tiny_patch16_384.augreg_in21k_ft_in1k",
]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_pixels_against_timms_own_transform(architecture, shapes):
    with torch.device("meta"):
        module = timm.create_model(architecture)
    reference = create_transform(**resolve_data_config({}, model=module))
    for rgb in shapes.values():
        expected = reference(Image.fromarray(rgb))
        exact = from_timm.transform_of(module, "pillow")
        assert torch.equal(exact.normalise(torch.from_numpy(exact.apply(rgb))[None])[0], expected)
        fast = from_timm.transform_of(module).apply(rgb)
        assert np.abs(fast.astype(int) - exact.apply(rgb)).max() <= 2  # grey levels


@pytest.mark.parametrize("name", ["ViT-L-14/openai", "coca_ViT-B-32/mscoco_finetuned_laion2b_s13b_b90k"])
def test_pixels_against_open_clips_own_transform(name, shapes):
    import open_clip

    architecture, config = from_open_clip.find_published(name)
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    reference = open_clip.image_transform(
        size, is_train=False, **{key: config[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    )
    ours = from_open_clip.transform_of(SimpleNamespace(image_size=size), config, "pillow")
    for rgb in shapes.values():
        assert torch.equal(ours.normalise(torch.from_numpy(ours.apply(rgb))[None])[0], reference(Image.fromarray(rgb)))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm:resnet18.tv_in1k"])
def test_features_against_eager_fp32_one_image_at_a_time(name, shapes):
    weights = Weights() if name == "efficientnet_lite0" else Weights("random", 0)
    (network,) = build_encoders(find_encoders([name]), weights)
    module = network.module
    reference = create_transform(**resolve_data_config({}, model=module))
    with torch.inference_mode():
        slow = [
            module.forward_head(module.forward_features(reference(Image.fromarray(rgb))[None]), pre_logits=True)[
                0
            ].numpy()
            for rgb in shapes.values()
        ]
    fast = Forward(network, Cpu())(np.stack([network.prepare(rgb) for rgb in shapes.values()]))["pool"]
    for one, other, shape in zip(slow, fast, shapes, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine >= 0.9999, (shape, cosine)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "shape", [(533, 800), (800, 533), (900, 410), (120, 1200), (13, 20), (224, 500), (300, 224), (240, 300), (300, 240)]
)
def test_making_only_what_the_crop_needs_changes_no_pixel(shape, interpolation):
    """Against torch's own resize of the whole image, in Pillow's order of passes, cropped afterwards.

    240 pixels become 256, of which those up to the 240th are needed.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = Transform(256, (224, 224), interpolation, (0.5,) * 3, (0.5,) * 3).apply(rgb)
    height, width = shape
    size = (int(256 * height / width), 256) if width <= height else (256, int(256 * width / height))
    passes = [size]
    if size[0] < height and height - size[0] > 2 * (width - size[1]):
        passes = [(size[0], width), size]
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    for step in passes:
        image = torch.nn.functional.interpolate(image, size=step, mode=interpolation, antialias=True)
    top, left = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    assert np.array_equal(ours, image[0, :, top : top + 224, left : left + 224].numpy())


def test_squash_needs_no_crop_and_a_crop_that_does_not_fit_is_refused():
    squash = Transform((8, 6), (8, 6), "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert squash.apply(np.zeros((30, 10, 3), np.uint8)).shape == (3, 8, 6)
    with pytest.raises(EncoderError, match="does not fit"):
        Transform(100, (128, 128), "bicubic", (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(EncoderError, match="'box' is not supported; valid: bicubic, bilinear, lanczos"):
        Transform(128, (128, 128), "box", (0.5,) * 3, (0.5,) * 3)


def test_lanczos_keeps_the_aspect_and_cuts_the_middle(shapes):
    """The map of ResNet-101: the shorter edge to 292, the middle 256, to the bit, whatever resizes elsewhere."""
    geometry = find_encoders(["resnet101_map"])[0].geometry
    with torch.device("meta"):
        module = timm.create_model("resnet101.tv_in1k")
    reference = create_transform(**resolve_data_config(dict(geometry), model=module))
    transform = from_timm.transform_of(module, "torchvision", geometry)
    assert (transform.resize, transform.crop, transform.interpolation) == (292, (256, 256), "lanczos")
    for rgb in shapes.values():
        pixels = transform.normalise(torch.from_numpy(transform.apply(rgb))[None])[0]
        assert torch.equal(pixels, reference(Image.fromarray(rgb)))


def test_another_size_squashes_the_image():
    """``NAME~SIZE`` of timm's networks: the whole image, its aspect lost, in a block of another name."""
    (spec,) = find_encoders(["timm:test_resnet.r160_in1k~48"])
    assert spec.block("pool") == "timm-test_resnet.r160_in1k-48.pool"
    (network,) = build_encoders([spec], Weights(kind="random"))
    assert network.input_shape == (3, 48, 48)
    assert network.transform["resize"] == network.transform["crop"] == (48, 48)
    for name, words in (("vgg16~9", "16 to 1024"), ("vgg16~x", "16 to 1024"), ("clip_vit_l14~224", "of one size")):
        with pytest.raises(EncoderError, match=words):
            find_encoders([name])


def test_blue_green_red_from_0_to_255():
    """As OpenCV reads and Keras' older programs take them: no scaling."""
    transform = find_architecture("emosepar").transform({"input": "bgr255"})
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.allclose(transform.normalise(pixels), pixels.flip(1).float(), atol=1e-4)
    assert transform.record()["channels"] == "BGR"
    assert "channels" not in find_architecture("emosepar").transform({}).record()


@pytest.mark.parametrize("shape", [(300, 401), (97, 40), (150, 150)])
def test_resizing_as_opencv_does_mixes_two_pixels_each_way(shape):
    """By hand: the middle of each new pixel lies between two old ones; what lies farther off is not seen."""
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = Transform((150, 150), (150, 150), "opencv", (0.5,) * 3, (0.5,) * 3).apply(rgb)

    def mixed(values, n):
        """Resize the first axis."""
        at = np.clip((np.arange(150) + 0.5) * n / 150 - 0.5, 0, None)
        low = np.minimum(at.astype(int), n - 1)
        share = (at - low).reshape(-1, 1, 1)
        return values[low] * (1 - share) + values[np.minimum(low + 1, n - 1)] * share

    across = mixed(rgb.astype(float).transpose(1, 0, 2), shape[1]).transpose(1, 0, 2)
    expected = mixed(across, shape[0]).transpose(2, 0, 1)
    assert np.abs(found - expected).max() <= 0.501
    assert np.array_equal(found, rgb.transpose(2, 0, 1)) == (shape == (150, 150))
