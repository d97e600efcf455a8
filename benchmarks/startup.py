"""How long do `import jepakit` and `jepa --help` take as whole processes, compared with a bare interpreter?

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time

from record import save

ROUNDS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import jepakit": ["-c", "import jepakit"],
    "jepa --help": ["-m", "jepakit.cli", "--help"],
}


def seconds(words: list[str]) -> float:
    """The wall time of one process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):  # interleaved, so that a slow moment affects all commands alike
        for name, words in COMMANDS.items():
            taken[name].append(seconds(words))
    medians = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    for name, value in medians.items():
        print(f"{name:<16} {value:.3f} s  ({min(taken[name]):.3f} … {max(taken[name]):.3f})")
    save("startup", rounds=ROUNDS, seconds=medians)


if __name__ == "__main__":
    main()
