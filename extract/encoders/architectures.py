"""The networks of our own that `extract fit` trains: Emosepar, residual, FractalNet, AlexNet, a concept classifier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.alexnet import AlexNet as TorchvisionAlexNet

__all__ = ["AlexNet", "Concepts", "Emosepar", "FractalNet", "ResNet", "SmallNetwork", "initialise_as_keras"]
__all__ += ["parameters"]


def parameters(module: nn.Module) -> tuple[int, int]:
    """Count a network's numbers: all, with the running means and variances of its normalisations, and those trained."""
    trained = sum(p.numel() for p in module.parameters())
    running = sum(b.numel() for name, b in module.named_buffers() if name.rpartition(".")[2].startswith("running_"))
    return trained + running, trained


def initialise_as_keras(module: nn.Module, *, scaled: bool = True) -> nn.Module:
    """Draw new weights as Keras does by default, and take over the constants of its batch normalisation.

    Glorot uniform, biases of zero, a momentum of .99 (torch counts the other way round: .01), an epsilon of 1e-3.
    Not *scaled*: its normalisations shift without a scale.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.momentum = 1e-3, 0.01
            if not scaled:
                layer.register_parameter("weight", None)
    return module


class SmallNetwork(nn.Module):
    """Convolutions, global average pooling, dropout, and a dense layer; its methods are those of timm's networks.

    Parameters
    ----------
    body : torch.nn.Module
        (n, 3, height, width) to (n, n_features, h, w).
    dropout : float
        Of the pooled vector, in training.
    """

    def __init__(self, body: nn.Module, n_features: int, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(n_features, n_outputs)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last maps, (n, n_features, h, w)."""
        maps: torch.Tensor = self.body(x)
        return maps

    def forward_head(self, x: torch.Tensor, *, pre_logits: bool = False) -> torch.Tensor:
        """Return (n, n_outputs): values, or logits; with *pre_logits* the pooled vector, (n, n_features)."""
        pooled = self.dropout(x.mean(dim=(2, 3)))
        outputs: torch.Tensor = pooled if pre_logits else self.dense(pooled)
        return outputs

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        return self.dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, n_outputs): values, or logits."""
        return self.forward_head(self.forward_features(x))


class _Separable(nn.Sequential):
    """Depthwise 3x3, pointwise 1x1 with bias, as Keras' SeparableConv2D without padding."""

    def __init__(self, n_in: int, n_out: int) -> None:
        depthwise = nn.Conv2d(n_in, n_in, kernel_size=3, groups=n_in, bias=False)
        super().__init__(depthwise, nn.Conv2d(n_in, n_out, kernel_size=1))


def _norm(n: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n, eps=1e-3)  # Keras' epsilon


class Emosepar(SmallNetwork):
    """Emosepar (Noguera 2018): 534,786 numbers, 531,138 of them trained, for images of 150 x 150.

    Nothing is padded: 150, 148, 73, 71, 69, 34, 32, 30, 14, 12, 10.
    """

    def __init__(self, n_outputs: int, *, dropout: float = 0.5) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 32, kernel_size=3, bias=False), _norm(32), nn.ReLU()]
        for n_in, n_out in pairwise((32, 128, 256, 512)):
            layers += [nn.MaxPool2d(3, stride=2), _Separable(n_in, n_out), _norm(n_out), nn.ReLU()]
            layers += [_Separable(n_out, n_out), _norm(n_out)]
        super().__init__(nn.Sequential(*layers), 512, n_outputs, dropout)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, which is subsampled and filled with zeros where the width grows."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride, self.added = (1 if n_in == n_out else 2), n_out - n_in
        self.first = nn.Conv2d(n_in, n_out, kernel_size=3, stride=self.stride, padding=1, bias=False)
        self.second = nn.Conv2d(n_out, n_out, kernel_size=3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        identity = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        out: torch.Tensor = (y + identity).relu()
        return out


class ResNet(SmallNetwork):
    """The residual network for small images (He et al. 2016, section 4.2, shortcuts of type A): 6n + 2 layers.

    Parameters
    ----------
    depth : int, default=32
        20, 32, 44, 56, 110, ...: three stages of n pairs of convolutions, the stem and the dense layer.
    width : int, default=16
        Of the first stage; the next have twice and four times as much.
    """

    def __init__(self, n_outputs: int, *, depth: int = 32, width: int = 16, dropout: float = 0.0) -> None:
        n, rest = divmod(depth - 2, 6)
        if rest or n < 1:
            raise ValueError(f"depth is {depth}, and 6n + 2 is possible: 8, 14, 20, 26, 32, ...")
        widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
        blocks = [_Residual(n_in, n_out) for n_in, n_out in pairwise(widths)]
        stem = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        layers = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(), *blocks)
        super().__init__(layers, 4 * width, n_outputs, dropout)


class _FractalBlock(nn.Module):
    """Columns of 1, 2, 4, ... convolutions, joined by their mean wherever several end (Larsson et al. 2017).

    In training half of the passes keep one column of the whole network (global drop-path); in the others each input
    of a join is dropped with a probability, one always staying (local drop-path).
    """

    def __init__(self, n_in: int, n_out: int, n_columns: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path, self.depth = drop_path, 2 ** (n_columns - 1)
        self.columns = nn.ModuleList(
            nn.ModuleList(_unit(n_in if i == 0 else n_out, n_out) for i in range(2**k)) for k in range(n_columns)
        )

    def forward(self, x: torch.Tensor, only: int | None) -> torch.Tensor:
        if only is not None:
            for unit in self._units(only):
                x = unit(x)
            return x
        ends = [x] * len(self.columns)
        for step in range(1, self.depth + 1):
            done = [k for k in range(len(self.columns)) if step % self._span(k) == 0]
            for k in done:
                ends[k] = self._units(k)[step // self._span(k) - 1](ends[k])
            joined = self._join([ends[k] for k in done])
            for k in done:
                ends[k] = joined
        return joined

    def _units(self, column: int) -> nn.ModuleList:
        units: nn.ModuleList = self.columns[column]  # type: ignore[assignment]
        return units

    def _span(self, column: int) -> int:
        """How many steps one convolution of a column stands for."""
        return self.depth // 2**column

    def _join(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        kept = list(inputs)
        if self.training and self.drop_path and len(kept) > 1:
            drawn = torch.rand(len(kept))
            alive = drawn >= self.drop_path
            alive[int(drawn.argmax())] = True
            kept = [one for one, stays in zip(kept, alive.tolist(), strict=True) if stays]
        return torch.stack(kept).mean(dim=0)


def _unit(n_in: int, n_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())


class _FractalBody(nn.Module):
    def __init__(self, widths: Sequence[int], n_columns: int, drop_path: float) -> None:
        super().__init__()
        self.n_columns, self.drop_path = n_columns, drop_path
        self.blocks = nn.ModuleList(
            _FractalBlock(n_in, n_out, n_columns, drop_path) for n_in, n_out in pairwise((3, *widths))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        only = None
        if self.training and self.drop_path and bool(torch.rand(()) < 0.5):
            only = int(torch.randint(self.n_columns, ()))
        for at, block in enumerate(self.blocks):
            x = block(x if at == 0 else functional.max_pool2d(x, 2), only)
        return x


class FractalNet(SmallNetwork):
    """FractalNet (Larsson, Maire, Shakhnarovich 2017) for images of 32 x 32: ultra-deep without residuals.

    Parameters
    ----------
    widths : sequence of int, default=(64, 128, 256, 512, 512)
        Of the blocks, with 2x2 pooling between them; at most five for 32 pixels.
    columns : int, default=3
        Of each block; the longest column has ``2 ** (columns - 1)`` convolutions.
    drop_path : float, default=0.15
        Probability of local drop-path; 0 turns the global one off, too.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        columns: int = 3,
        drop_path: float = 0.15,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(_FractalBody(widths, columns, drop_path), widths[-1], n_outputs, dropout)


class AlexNet(TorchvisionAlexNet):
    """torchvision's AlexNet (61,100,840 parameters for 1,000 classes) with timm's methods; it stands for CaffeNet.

    CaffeNet (60,965,224) has grouped convolutions, local response normalisation and other widths in its first layers.
    """

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last maps, (n, 256, h, w)."""
        maps: torch.Tensor = self.features(x)
        return maps

    def forward_head(self, x: torch.Tensor, *, pre_logits: bool = False) -> torch.Tensor:
        """Return (n, n_outputs); with *pre_logits* the vector before the last layer, (n, 4096)."""
        layers = self.classifier[:-1] if pre_logits else self.classifier
        found: torch.Tensor = layers(self.avgpool(x).flatten(1))
        return found

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier[-1]


class Concepts(nn.Module):
    """The concept classifier of the fusion system of 2021 (its vector Y) over the last activations of a network.

    A 1-D convolution with 64 filters over the frames of a video, ReLU, the largest value over the frames, dropout, and
    a dense layer; the sigmoid is that of its loss and outputs. An image is a video of one frame, so the kernel is 1.
    Over the 2,048 values of Inception-v3 and with 3,862 outputs that is 2048 x 64 + 64 + 64 x 3862 + 3862 = 382,166.

    Parameters
    ----------
    trunk : torch.nn.Module
        A network with timm's methods, without its classifier.
    n_features : int
        Of the trunk's pooled vector.
    """

    def __init__(self, trunk: nn.Module, n_features: int, n_outputs: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.trunk = trunk
        self.filters = nn.Conv1d(n_features, 64, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(64, n_outputs)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the trunk's last activations, one frame an image: (n, n_features, 1)."""
        trunk: Any = self.trunk
        frames: torch.Tensor = trunk.forward_head(trunk.forward_features(x), pre_logits=True)[:, :, None]
        return frames

    def forward_head(self, x: torch.Tensor, *, pre_logits: bool = False) -> torch.Tensor:
        """Return (n, n_outputs); with *pre_logits* the pooled filters, (n, 64)."""
        pooled = self.dropout(self.filters(x).relu().amax(dim=2))
        found: torch.Tensor = pooled if pre_logits else self.dense(pooled)
        return found

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        return self.dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, n_outputs): logits."""
        return self.forward_head(self.forward_features(x))
