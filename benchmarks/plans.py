"""How often do plans arrive? Collects the scores of finished runs, one per training seed, into results/plans.json.

jepa train two-rooms-fixed --seed 0 --out RUN
jepa plan RUN --episodes 50 --seed 0
python benchmarks/plans.py two-rooms-fixed RUN RUN RUN
"""

import json
import sys
from pathlib import Path
from typing import Any

from record import HERE, circumstances


def scores(run: Path) -> dict[str, Any]:
    """Seconds of training and every agent's score of one run, for each planner."""
    trained = {"world model": run, **{head.name: head for head in sorted((run / "heads").glob("*"))}}
    seconds = {
        name: json.loads((folder / "summary.json").read_text())["seconds"]
        for name, folder in trained.items()
        if name != "decoder"
    }
    plans = {}
    for path in sorted((run / "evals").glob("plan-*.json")):
        result = json.loads(path.read_text())
        kept = ("success_end", "success_ever", "return", "low", "high", "energy", "agents", "model", "protocol")
        plans[path.stem.removeprefix("plan-")] = {key: result.get(key) for key in kept}
    return {"seconds": seconds, "plans": plans}


def main(recipe: str, runs: list[Path]) -> None:
    file = HERE / "results" / "plans.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    found[recipe] = {**circumstances(), "runs": [scores(run) for run in runs]}
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main(sys.argv[1], [Path(run) for run in sys.argv[2:]])
