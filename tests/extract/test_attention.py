"""The attention of open_clip's image towers gives what torch's own gives."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn

from extract.encoders import weights as weights_module
from extract.encoders.attention import SelfAttention, replace_attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n_tokens", "n_features", "n_heads"), [(1, 8, 1), (50, 48, 3), (257, 64, 8)])
def test_equals_torchs_own(n_tokens, n_features, n_heads, masked):
    with weights_module.seeded(0):
        own = nn.MultiheadAttention(n_features, n_heads, batch_first=True).eval()
        nn.init.normal_(own.in_proj_bias)
        x = torch.randn(3, n_tokens, n_features)
    mask = torch.full((n_tokens, n_tokens), float("-inf")).triu(1) if masked else None
    ours = SelfAttention(own)
    with torch.inference_mode():
        expected = own(x, x, x, need_weights=False, attn_mask=mask)[0]
        found, weights = ours(x, x, x, attn_mask=mask)
    assert torch.allclose(found, expected, atol=1e-6)
    assert weights is None
    assert ours.state_dict().keys() == own.state_dict().keys()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_tower_gives_the_same_afterwards(compiled):
    """One whose pooling is a cross-attention, which is left as it is."""
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
    vision |= {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    with weights_module.seeded(0):
        theirs = open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text).visual.eval()
        images = torch.rand(2, 3, 64, 64)
    ours = copy.deepcopy(theirs)
    replace_attention(ours)
    kinds = [type(module) for module in ours.modules()]
    assert kinds.count(SelfAttention) == 2
    assert kinds.count(nn.MultiheadAttention) == 1
    with torch.inference_mode():
        found = (torch.compile(ours) if compiled else ours)(images)
        expected = theirs(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 1e-2  # not all one number
