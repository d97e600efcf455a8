"""How accurate are the probes of README's recipes? Trains one recipe with one seed and records each probe's score.

python benchmarks/accuracy.py demo --seed 0
python benchmarks/accuracy.py cifar10-ijepa --train train.parquet --test test.parquet --seed 0
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from record import HERE, circumstances

import jepakit as jk

# What README scores of each recipe: a name of its own, the kind of probe, and its settings.
Probes = tuple[tuple[str, str, dict[str, Any]], ...]
KNN, LINEAR = ("knn", "knn", dict[str, Any]()), ("linear", "linear", dict[str, Any]())
WHITE: Any = ("knn, whitened", "knn", {"knn.whiten": True, "knn.weights": "softmax"})
PROBES: dict[str, Probes] = {
    "demo": (KNN, LINEAR),
    "cifar10-ijepa": (KNN, LINEAR),
    "cifar10-best": (KNN, WHITE, LINEAR),
    "fashion-ijepa": (("knn, all tokens", "knn", {"knn.pool": "flat"}), LINEAR),
}


def scores(recipe: str, train: str | None, test: str | None, seed: int, out: Path) -> dict[str, Any]:
    """Seconds of training, and score, interval and baselines of every probe, in percent."""
    whole = {} if train is None else {"data.split": "all"}  # The test pictures are a file of their own.
    begin = time.perf_counter()
    jk.train(train, out, recipe=recipe, seed=seed, settings={**whole, "evals.kinds": []}, resume="auto")
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - begin)}
    for name, kind, settings in PROBES[recipe]:
        result = json.loads(jk.probe(out, kind, data=train, test=test, settings=settings).read_text())
        shares = {key: result[key] for key in ("value", "low", "high", "random_init", "raw")}
        found[name] = {key: round(100 * share, 1) for key, share in shares.items()} | {"n_test": result["n_test"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", choices=PROBES)
    parser.add_argument("--train")
    parser.add_argument("--test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path("runs") / f"{given.recipe}-{given.seed}"
    measured = scores(given.recipe, given.train, given.test, given.seed, out)
    file = HERE / "results" / "accuracy.json"
    runs = json.loads(file.read_text())["runs"] if file.exists() else {}
    runs.setdefault(given.recipe, {})[str(given.seed)] = {**circumstances(), **measured}
    file.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
