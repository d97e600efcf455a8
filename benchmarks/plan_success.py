"""Which number of a world model predicts that it plans? Prints the table of docs/world-models.md.

jepa reproduce plan-success --out FOLDER
python benchmarks/plan_success.py FOLDER
"""

import json
import sys
from pathlib import Path

from jepakit.studies.study import Scores
from jepakit.studies.worldmodel.plan_success import MIN_SOUND_SUCCESS, NUMBERS, STUDY, success_correlations


def main(folder: Path) -> None:
    rows = json.loads((folder / "table.json").read_text())["rows"]
    scores = Scores({(row["name"], row["metric"]): row["values"] for row in rows}, STUDY.arms)
    every, sound = success_correlations(scores), success_correlations(scores, MIN_SOUND_SUCCESS)
    print(f"| number | needs a simulator | correlation | with a success of {100 * MIN_SOUND_SUCCESS:.0f} % or more |")
    print("|---|---|---|---|")
    for name, found in every.items():
        simulator = "" if NUMBERS[name].from_logs else "yes"
        print(f"| {name} | {simulator} | {found} | {sound.get(name, '')} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
