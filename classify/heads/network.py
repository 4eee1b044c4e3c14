"""The estimator around a torch module: options, training, probabilities and values of every network head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from tqdm import tqdm

from classify.data.rows import ORDERS, Rows, shuffles_by_blocks
from classify.data.standardizer import Standardizer, finite_batches
from classify.heads.base import ClassifierHead, Head, RegressorHead
from classify.heads.first_layer import PROJECTIONS, lifted, project_first, projects
from classify.heads.losses import labels_loss, single_loss
from classify.heads.options import (
    choice,
    costs_of_mistakes,
    flag,
    layers,
    number,
    random_seed,
    refuse_class_options,
    weights_of_classes,
    whole,
)
from classify.heads.training import KEPT, OPTIMIZERS, Batches, Checkpoint, Hits, Loss, Training

if TYPE_CHECKING:
    from typing_extensions import Self

_TINY = 1e-12

INITS: dict[str, Callable[[torch.Tensor], torch.Tensor] | None] = {
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "he_normal": nn.init.kaiming_normal_,
    "he_uniform": nn.init.kaiming_uniform_,
    "torch": None,
}


def hidden_layers(n_features: int, sizes: Sequence[int], dropout: float) -> list[nn.Module]:
    """Return fully connected layers of *sizes*, each followed by ReLU and dropout (of a fraction of units)."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip((n_features, *sizes[:-1]), sizes, strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
    return layers


class NetworkHead(Head):
    """Base of the heads trained by mini-batches; a subclass says how the module is built.

    The options are the fields below; `LayeredHead` adds those of hidden layers.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained network, from standardized features to outputs.
    history_ : list of dict
        One record an epoch: ``epoch``, ``learning_rate``, ``loss``, of one label an image ``accuracy``, and with
        validation rows ``validation_loss`` and ``validation_accuracy``.
        Given validation rows, the weights are those of the epoch with the lowest validation loss, unless ``keep`` is
        "last".
    n_parameters_ : int
        Trainable numbers.

    Notes
    -----
    Same data, options, seed and thread count give equal bits.
    """

    dropout: float = number(
        0.4, "fraction of hidden units dropped in training; without one, of inputs", least=0, below=1
    )
    init: str = choice("glorot_uniform", "initial weights; biases start at 0, but torch draws both its own way", INITS)
    optimizer: str = choice("adam", "sgd has Nesterov momentum", OPTIMIZERS)
    learning_rate: float = number(3e-4, "at the start of training", above=0, most=1e3)
    momentum: float = number(0.9, "of sgd", least=0, below=1)
    decay: float = number(0.0, "the rate of step t is learning_rate / (1 + decay * t)", least=0, most=1e6)
    weight_decay: float = number(0.0, "L2 penalty, added to the gradient", least=0, most=1e6)
    epochs: int = whole(60, "passes over the training rows, at most", most=10**6)
    batch_size: int = whole(64, "rows in a step")
    halve_every: int | None = whole(None, "halve the rate after each so many epochs", none="never")
    patience: int | None = whole(
        10, "given validation rows, stop after so many epochs without a lower validation loss", none="never"
    )
    keep: str = choice(
        "best",
        "the weights after training, given validation rows: of the epoch with the lowest validation loss, or of the "
        "last epoch, as Keras does unless told to restore the best",
        KEPT,
    )
    class_weight: Any = weights_of_classes(
        "what the rows of a class weigh in the loss; balanced: each class the same in all, of several labels an image "
        "the two sides of each label the same"
    )
    cost: Any = costs_of_mistakes(
        "what it costs to predict class k (column) for an image of class c (row); the expected cost of the predictions "
        "is added to the loss"
    )
    standardize: bool = flag("bring each feature to mean 0 and variance 1, measured on the training rows", default=True)
    shuffle: str = choice(
        "auto",
        "draw the order of a pass row by row, or by blocks of neighbours; auto: by blocks where the rows' vectors "
        "exceed half of the machine's memory, so there the order depends on the machine",
        ORDERS,
    )
    verbose: bool = flag("show a progress bar over the epochs, if they take longer than two seconds", default=False)
    random_state: Any = random_seed("draws initial weights, the order of the rows and dropout")

    length = "epochs"
    resumable = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dropout": ("uniform", 0.0, 0.7),
        "learning_rate": ("log", 1e-5, 1e-2),
        "weight_decay": ("log", 1e-7, 1e-2),
        "batch_size": ("choice", 32, 64, 128),
    }
    _learned: ClassVar[tuple[str, ...]] = ("standardizer_", "module_")

    project = "never"  # heads of which the first layer is no fully connected one have no span to train in
    keep_outside = True

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Train; rows of *validation* stop it early, and are never trained on.

        Validation rows of a class that has no training row are left out of the loss. A *checkpoint* is where training
        is saved, resumed from, and stopped in time.
        """
        # Dropout and initial weights draw from torch's global generator: lend it out, seeded, and put it back.
        with torch.random.fork_rng(devices=[]):
            training = self.training(X, y, validation)
            out_of_time = checkpoint.attached(training) if checkpoint else lambda: False
            done = {"total": self.epochs, "initial": len(training.history), "disable": not self.verbose}
            with tqdm(desc="epochs", unit="epoch", delay=2, **done) as bar:

                def stop() -> bool:
                    record = training.history[-1]
                    losses = {name: f"{record[name]:.4f}" for name in ("loss", "validation_loss") if name in record}
                    bar.set_postfix(losses, refresh=False)
                    bar.update()
                    return out_of_time()

                training.run(stop)
        self._finish(training)
        return self

    def _build(self, n_features: int, n_outputs: int) -> nn.Module:
        """Return the untrained module."""
        raise NotImplementedError

    @staticmethod
    def _output_layer(module: nn.Module) -> nn.Linear:
        """Return the layer that the outputs come from."""
        raise NotImplementedError

    def _n_outputs(self) -> int:
        """Return how many outputs the fitted task has."""
        raise NotImplementedError

    def _tensor(self, targets: np.ndarray) -> torch.Tensor:
        """Return codes or targets as the loss takes them."""
        raise NotImplementedError

    def _loss(self, targets: np.ndarray) -> Loss:
        raise NotImplementedError

    def training(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> Training:
        """Draw the module and lay out the batches; torch's global generator is seeded, and left for the loop."""
        rows, targets = self._training_rows(X, y)
        found = None if validation is None else self._held_out(*validation)
        held_out = None if found is None else (found[0], self._tensor(found[1]))
        loss = self._loss(targets)
        drawn = check_random_state(self.random_state).randint(2**31 - 1)
        self.standardizer_ = self._standardizer(rows)
        scale: Standardizer | None = self.standardizer_
        torch.manual_seed(drawn)
        module = self._initialised(self._build(rows.shape[1], self._n_outputs()))
        if projects(self.project, module, rows, self.optimizer):
            decays = self.weight_decay > 0 and self.optimizer == "sgd"
            measured = self.standardizer_
            layer, rows = project_first(module, rows, measured, keep_outside=self.keep_outside, decays=decays)
            held_out = held_out and (layer.rows(held_out[0], measured), held_out[1])
            scale = None
        generator = torch.Generator().manual_seed(drawn)
        batched = functools.partial(Batches, size=self.batch_size, standardizer=scale)
        train = batched(
            rows, self._tensor(targets), generator=generator, by_blocks=shuffles_by_blocks(self.shuffle, rows)
        )
        return Training(self, module, loss, train, None if held_out is None else batched(*held_out), self._hits())

    def _hits(self) -> Hits | None:
        """Return the count of right predictions for the history; None where predictions are not right or wrong."""
        return None

    def _standardizer(self, rows: Rows) -> Standardizer:
        """Measure the training rows."""
        return Standardizer.fit(rows, standardize=self.standardize)

    def _finish(self, training: Training) -> None:
        """Take over a trained module, its first layer mapped back to the features."""
        self.module_, self.history_ = lifted(training.module), training.history
        losses = [record["validation_loss"] for record in self.history_ if "validation_loss" in record]
        kept = len(losses) if self.keep == "last" else int(np.argmin(losses or [0.0])) + 1
        self.best_length_ = kept if losses and self.patience else None
        self.n_parameters_ = sum(p.numel() for p in self.module_.parameters() if p.requires_grad)

    def _initialised(self, module: nn.Module) -> nn.Module:
        draw = INITS[self.init]
        for layer in module.modules():
            if draw is not None and isinstance(layer, nn.Linear | nn.Conv2d):
                draw(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return module

    @torch.inference_mode()
    def _outputs(self, X: Any) -> torch.Tensor:
        """Return the module's outputs for *X*: float32 (n_images, n_outputs)."""
        rows = self._rows(X, reset=False)
        self.module_.eval()
        return torch.cat([self.module_(torch.from_numpy(self.standardizer_(x))) for _, x in finite_batches(rows)])

    def loaded_module(self, weights: dict[str, np.ndarray]) -> nn.Module:
        """Return the network of this head with given weights."""
        with torch.device("meta"):  # no memory for sizes that a damaged file may claim, no weights drawn in vain
            module = self._build(self.n_features_in_, self._n_outputs())
        tensors = {name: torch.from_numpy(value).to(torch.float32) for name, value in weights.items()}
        module.load_state_dict(tensors, assign=True)
        return module.eval()

    def gradient(self, x: np.ndarray, output: int) -> np.ndarray | None:
        """Return the slope of an output at one row, (n_features,), by backward differentiation."""
        row = torch.from_numpy(x[None].copy()).requires_grad_()
        mean, scale = (torch.from_numpy(one) for one in (self.standardizer_.mean, self.standardizer_.scale))
        value = self._traced(self.module_.eval()((row - mean) / scale).double()[0], output)
        (found,) = torch.autograd.grad(value, row)
        return np.asarray(found[0].numpy(), dtype=np.float32)

    def _traced(self, outputs: torch.Tensor, output: int) -> torch.Tensor:
        """Return the log-odds of a class, or a value, from the module's outputs for one row, (n_outputs,)."""
        raise NotImplementedError


class LayeredHead(NetworkHead):
    """Base of the networks that begin with fully connected layers over the features."""

    hidden: Sequence[int] | int = layers(
        (256,), "units of the hidden layers; the perceptron also takes [], none", least=0
    )
    project: str = choice(
        "auto",
        "train the first layer in the coordinates of the training rows' span and map it back: the same network, "
        "sooner; auto: with fewer training rows than features, under sgd, for which it is exact; always: also under "
        "adam and nadam, whose steps depend on the coordinates",
        PROJECTIONS,
    )
    keep_outside: bool = flag(
        "where projected, keep the part of the initial weights that no training row reaches: fixed noise on unseen "
        "rows, as unprojected; false drops it, which regularises",
        default=True,
    )

    def _sizes(self) -> tuple[int, ...]:
        """Return the sizes of the hidden layers; a single number is one layer."""
        return tuple(self.hidden) if isinstance(self.hidden, Sequence) else (self.hidden,)


class NetworkClassifier(ClassifierHead, NetworkHead):
    """Base of the trained classifiers: softmax and cross-entropy, for several labels a sigmoid each."""

    def _row_losses(self, outputs: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row with one label, (n,)."""
        return nn.functional.cross_entropy(outputs, codes, reduction="none")

    def _single_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(dim=1)

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _loss(self, codes: np.ndarray) -> Loss:
        if self.multilabel_:
            return labels_loss(self, codes)
        return single_loss(self, codes, self._row_losses, self._single_probabilities)

    def _hits(self) -> Hits | None:
        return None if self.multilabel_ else lambda outputs, codes: (outputs.argmax(dim=1) == codes).sum()

    def _tensor(self, codes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(codes.astype(np.float32 if self.multilabel_ else np.int64))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 (n_images, n_classes); rows sum to 1 unless multi-label."""
        return self._probabilities(self._outputs(X).double()).numpy()

    def _traced(self, outputs: torch.Tensor, output: int) -> torch.Tensor:
        p = self._probabilities(outputs[None])[0]
        others = 1 - p[output] if self.multilabel_ else p.sum() - p[output]
        return p[output].clamp_min(_TINY).log() - others.clamp_min(_TINY).log()

    def _probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(outputs) if self.multilabel_ else self._single_probabilities(outputs)


class NetworkRegressor(RegressorHead, NetworkHead):
    """Base of the trained regressors: mean squared error on targets brought to mean 0 and variance 1.

    The targets are scaled by the training rows' mean and deviation, and predictions scaled back, so that a
    learning rate means the same on a scale of -1..1 and of 1..9; the losses of ``history_`` are in units of
    the targets' variance. The output layer starts at 0 whatever ``init`` says, so that training starts from the
    mean and not from noise, which few images against thousands of features would not wash out.
    """

    _learned = ("standardizer_", "target_mean_", "target_scale_", "module_")

    def check_options(self) -> None:
        """Refuse an option that is not one of the values it takes, or that means nothing without classes."""
        super().check_options()
        refuse_class_options(self)

    def _initialised(self, module: nn.Module) -> nn.Module:
        module = super()._initialised(module)
        nn.init.zeros_(self._output_layer(module).weight)
        return module

    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    def _encode(self, y: Any) -> np.ndarray:
        targets = super()._encode(y)
        deviation = targets.std(axis=0)
        self.target_mean_ = targets.mean(axis=0)
        self.target_scale_ = np.where(deviation > 0, deviation, 1.0)
        return targets

    def _loss(self, targets: np.ndarray) -> Loss:
        return nn.functional.mse_loss

    def _tensor(self, y: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((y - self.target_mean_) / self.target_scale_).astype(np.float32))

    def predict(self, X: Any) -> np.ndarray:
        """Return values in the units of y, float64 (n_images,) or (n_images, n_outputs)."""
        outputs = self._outputs(X).double().numpy()
        return self._shaped(outputs * self.target_scale_ + self.target_mean_)

    def _traced(self, outputs: torch.Tensor, output: int) -> torch.Tensor:
        return outputs[output] * self.target_scale_[output] + self.target_mean_[output]
