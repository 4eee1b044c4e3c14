"""Fit AutoGluon Tabular on rows and write its answers: ``PYTHON autogluon_answers.py FOLDER SECONDS``.

Runs in an environment of its own, which lacks this package; `tests.bench.bench_auto` calls it.
"""

import sys

import numpy as np


def main(folder: str, seconds: int) -> None:
    """Read ``rows.npz`` of the folder, fit as its documentation recommends for accuracy, write ``answers.npy``."""
    import pandas
    from autogluon.tabular import TabularPredictor

    rows = np.load(f"{folder}/rows.npz")
    names = [f"f{k}" for k in range(rows["x"].shape[1])]
    table = pandas.DataFrame(rows["x"], columns=names).assign(label=rows["y"])
    single = rows["y"].dtype.kind == "i"
    metric = "log_loss" if single else "root_mean_squared_error"
    model = TabularPredictor("label", eval_metric=metric, path=f"{folder}/model", verbosity=1)
    model.fit(table, presets="best_quality", time_limit=seconds, num_cpus=2, dynamic_stacking=False)
    new = pandas.DataFrame(rows["new"], columns=names)
    np.save(f"{folder}/answers.npy", np.asarray(model.predict_proba(new) if single else model.predict(new)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
