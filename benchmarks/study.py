"""What did a study find? Its sentences, and every training's numbers but those of the panel, kept in results/.

jepa reproduce calibration --seeds 1 --data DATA --out FOLDER
python benchmarks/study.py FOLDER
"""

import json
import sys
from pathlib import Path

from record import save


def main(folder: Path) -> None:
    found = json.loads((folder / "table.json").read_text())
    runs: dict[str, dict[str, list[float]]] = {}
    for row in found["rows"]:
        if not row["metric"].startswith("panel: "):
            runs.setdefault(row["name"], {})[row["metric"]] = [float(f"{value:.4g}") for value in row["values"]]
    print(*found["says"], sep="\n")
    cost = {key: found[key] for key in ("processor_seconds",) if key in found}
    print(save(found["study"], claim=found["claim"], says=found["says"], **cost, runs=runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
