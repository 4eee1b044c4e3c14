"""Attention of image towers, in the form that compiles well."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SelfAttention", "replace_attention"]


class SelfAttention(nn.Module):
    """What ``torch.nn.MultiheadAttention`` computes where queries, keys and values are one, in evaluation.

    Torch's own turns the batch around before it projects; compiled for a CPU, each of these projections becomes one
    product of matrices per token, four times as slow as the one product over all tokens that it is here. The parameters
    of torch's module keep their names, so that a state dict fits both.
    """

    def __init__(self, torchs: nn.MultiheadAttention) -> None:
        super().__init__()
        self.n_heads = torchs.num_heads
        self.in_proj_weight = torchs.in_proj_weight
        self.in_proj_bias = torchs.in_proj_bias
        self.out_proj = torchs.out_proj

    def forward(
        self,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        *,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Return (n, n_tokens, n_features), and None for the weights, as torch's own does.

        Shapes: x (n, n_tokens, n_features); attn_mask (n_tokens, n_tokens) optional.
        """
        del keys, values, need_weights
        n, n_tokens, n_features = x.shape
        joint = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = joint.view(n, n_tokens, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(heads.transpose(1, 2).reshape(n, n_tokens, n_features)), None


def replace_attention(tower: nn.Module) -> None:
    """Put `SelfAttention` into every residual block of an open_clip tower that has torch's own, images first."""
    from open_clip.transformer import ResidualAttentionBlock

    for block in tower.modules():
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):  # that is cross-attention
            continue
        if isinstance(block.attn, nn.MultiheadAttention) and block.attn.batch_first:
            block.attn = SelfAttention(block.attn)
