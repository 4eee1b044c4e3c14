"""CLIP: the activation that its weights were trained with, its tokens, and the concepts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU

from extract.encoders import Tap, Weights, build_encoders, concepts, find_encoders, from_open_clip
from extract.encoders import weights as weights_module
from extract.engines import Cpu
from extract.engines.forward import Forward


@pytest.fixture(scope="module")
def network():
    """ViT-B/32 with the configuration of OpenAI's weights."""
    record = replace(find_encoders(["open_clip:ViT-B-32/openai"])[0], taps=(Tap("embedding"), Tap("tokens")))
    return build_encoders([record], Weights("random", 0))[0]


def test_openais_networks_have_quickgelu_and_without_it_nothing_fails_but_the_vectors(network):
    visual = network.module
    assert any(isinstance(layer, QuickGELU) for layer in visual.modules())
    with weights_module.silence_logging():
        plain = open_clip.create_model("ViT-B-32", device="meta").visual.eval()
    assert not any(isinstance(layer, QuickGELU) for layer in plain.modules())
    plain.load_state_dict(visual.state_dict(), assign=True)  # fits without complaint: this is the trap
    batch = torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, wrong = network.outputs(visual, batch)["embedding"], plain(batch)
        for layer in plain.modules():
            if isinstance(layer, torch.nn.GELU):
                layer.forward = lambda x: x * torch.sigmoid(1.702 * x)
        right = plain(batch)
    assert torch.allclose(ours, right, atol=1e-4)
    assert (ours - wrong).abs().max() > 100 * (ours - right).abs().max()


def test_taps_are_those_of_the_last_layer(network):
    visual, seen = network.module, []
    hook = visual.ln_post.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    batch = np.random.default_rng(0).integers(0, 256, (2, *network.input_shape), dtype=np.uint8)
    found = Forward(network, Cpu())(batch)
    hook.remove()
    last = seen[0].detach().numpy()  # (2, 1 + 49, 768), the class token first
    assert np.allclose(found["tokens"], last[:, 1:].mean(axis=1), atol=1e-5)
    assert np.allclose(found["embedding"], last[:, 0] @ visual.proj.detach().numpy(), atol=1e-4)


@pytest.fixture
def tiny():
    """A CLIP of two layers, and with the vocabulary of the large ones."""
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    with weights_module.seeded(0):
        return open_clip.CLIP(embed_dim=48, vision_cfg=vision, text_cfg=text).eval()


def test_concepts_are_cosines_with_whole_sentences(tiny):
    """Against open_clip's own text tower with its full context."""
    texts = [*concepts.sentences()[::700], max(concepts.sentences(), key=len)]
    with torch.inference_mode():
        expected = tiny.encode_text(open_clip.get_tokenizer("RN50")(texts), normalize=True)
        image = tiny.encode_image(torch.ones(1, 3, 64, 64), normalize=True)
    directions = concepts.directions(tiny, "RN50", texts, batch_size=2)
    assert tiny.attn_mask.shape[0] < 20  # the padding is gone
    assert torch.allclose(directions, expected, atol=1e-5)
    encoder = replace(find_encoders(["open_clip:RN50/openai"])[0], taps=(Tap("concepts"),))
    network = from_open_clip.wrap(encoder, tiny.visual, {}, "torchvision", directions=directions, text_sha256="abc")
    with torch.inference_mode():
        cosines = network.outputs(network.module, torch.ones(1, 3, 64, 64))["concepts"]
    assert torch.allclose(cosines, image @ expected.T, atol=1e-5)
    assert "concepts" not in network.module.state_dict()  # the digest of the weights is of the weights alone
    assert network.details["concepts"]["text_sha256"] == "abc"


def test_the_vocabulary_is_plutchiks_wheel_by_128_nouns():
    names = concepts.pairs()
    assert len(set(names)) == len(names) == 24 * 128
    assert [len(forms) for forms in concepts.ADJECTIVES.values()] == [3] * 8
    assert len({name.split()[1] for name in names}) == 128
    assert names[0] == "serene baby"
    assert concepts.sentences()[0] == "a photo of serene baby"
    assert concepts.vocabulary()["prompt"] == concepts.PROMPT
