"""The command line of stage 2, assembled from the commands in `classify/cli/`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from classify.cli import images, results, training
from classify.cli.options import examples
from features_store import console

app = typer.Typer(
    help="Train shallow heads on the vectors of a store, and compare them with baselines and intervals.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # in which [[grid]] and [default: ...] are text
    pretty_exceptions_enable=False,
)


@app.callback()
def classify(
    version: Annotated[
        bool,
        typer.Option("--version", callback=console.version_option, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Train shallow heads on the vectors of a store, and compare them with baselines and intervals."""


COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "run": (
        training.run,
        (
            "run features/emoji --task polarity --head svm --set C=0.3",
            "run features/b-t4sa --preset resnet50-sgd --time-budget 9h",
        ),
    ),
    "compare": (results.compare, ("compare runs/emoji", "compare runs/emoji/polarity --paired --json")),
    "report": (results.report, ("report runs/emoji", "report runs/emoji --data pictures -o emoji.html")),
    "figure": (
        results.figure,
        (
            "figure runs/b-t4sa-tfm/polarity --kind curves -o curves.svg",
            "figure features/jndataset --kind histogram --member ied -o histogram.svg",
        ),
    ),
    "heads": (results.heads, ("heads", "heads mlp")),
    "ablate": (
        results.ablate,
        ("ablate features/emoji --task polarity", "ablate features/emoji --task polarity --set C=[0.1,1,10]"),
    ),
    "sweep": (training.sweep, ("sweep grid.toml --dry-run", "sweep grid.toml --out runs/grid")),
    "search": (
        training.search,
        (
            "search features/emoji --task polarity --head mlp --trials 50",
            "search features/emoji --task valence --head svm --set kernel=rbf",
        ),
    ),
    "learning-curve": (
        results.learning_curve,
        ("learning-curve runs/emoji/polarity/svm", "learning-curve runs/emoji --points 4 --repeats 5"),
    ),
    "seeds": (results.seeds, ("seeds runs/emoji/polarity/gbm", "seeds runs/emoji --n 10")),
    "audit": (
        results.audit,
        ("audit features/emoji --task polarity", "audit features/emoji --task evokes --threshold 0.98"),
    ),
    "evaluate": (
        training.evaluate,
        (
            "evaluate runs/emoji/polarity/mlp features/vso-603",
            "evaluate runs/fi/emotion/mlp features/emotionroi --map joy=amusement",
        ),
    ),
    "presets": (training.presets, ("presets", "presets resnet50-sgd")),
    "reproduce": (
        training.reproduce,
        (
            "reproduce jndataset --store features/jndataset",
            "reproduce b-t4sa-tfm --data b-t4sa_imgs.tar --data vso-603=photo-tweets --run",
        ),
    ),
    "predict": (
        images.predict,
        ("predict runs/emoji/polarity/mlp holiday.jpg --json", "predict polarity.zip photos --csv"),
    ),
    "explain": (
        images.explain,
        ("explain runs/emoji/polarity/mlp --check", "explain runs/emoji/polarity/mlp holiday.jpg"),
    ),
    "bundle": (
        images.bundle,
        ("bundle runs/emoji/polarity/mlp -o polarity.zip", "bundle runs/emoji/valence/svm -o valence.zip --force"),
    ),
    "submit": (
        images.submit,
        (
            "submit runs/mediaeval21/subtask1/moe runs/mediaeval21/subtask2/mlp -o run1.csv",
            "submit runs/mediaeval21/subtask1/moe --check run1.csv",
        ),
    ),
}
PANELS = {training: "Training", results: "Results", images: "New images and sharing"}
OLD_NAMES = {"test": "evaluate", "curve": "learning-curve"}

for name, (command, lines) in COMMANDS.items():
    panel = next(title for module, title in PANELS.items() if module.__name__ == command.__module__)
    app.command(name, epilog=examples(*lines), rich_help_panel=panel)(command)
for old, name in OLD_NAMES.items():
    app.command(old, hidden=True)(COMMANDS[name][0])


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
