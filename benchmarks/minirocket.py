"""How many test series does MiniRocket label correctly? aeon's, with its own ridge classifier, one seed after another.

`series_classes.py` runs this file with the Python of another environment, which has aeon and not jepakit:

    python -m venv aeon && aeon/bin/pip install aeon
    aeon/bin/python benchmarks/minirocket.py FOLDER SEEDS

For every NAME_train.npz and NAME_test.npz in FOLDER (x (N, C, T), y) it prints a line of JSON. The first fit of a
process also compiles; it is not timed.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

# By name, because the environment of this project does not have it.
MINIROCKET = "aeon.classification.convolution_based"


def main(folder: Path, seeds: int) -> None:
    kind = importlib.import_module(MINIROCKET).MiniRocketClassifier
    for path in sorted(folder.glob("*_train.npz")):
        name = path.name.removesuffix("_train.npz")
        with np.load(path) as train, np.load(folder / f"{name}_test.npz") as test:
            (x, y), (held, labels) = ((part["x"], part["y"]) for part in (train, test))
        kind(random_state=0, n_jobs=1).fit(x, y).predict(held)
        found: dict[str, list[float]] = {"accuracy": [], "seconds": []}
        for seed in range(seeds):
            begun = time.process_time()
            guessed = kind(random_state=seed, n_jobs=1).fit(x, y).predict(held)
            found["seconds"].append(round(time.process_time() - begun, 2))
            found["accuracy"].append(round(float((guessed == labels).mean()), 4))
        print(json.dumps({"set": name, **found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
