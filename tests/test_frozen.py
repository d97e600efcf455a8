"""Runs and batches of an earlier version are read, continued and computed as that version did.

Its folder is frozen/: see write.py, outputs.py and batches.py there. Numbers are compared to rounding, which differs
between processors; with JEPAKIT_EXACT=1 they have to be equal to the last digit, digests are compared as well, and
batches of further seeds and workers.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from frozen.batches import CASES, FILE, IN_WORKERS, SEEDS, check_workers, computed, prepared, source_of
from frozen.outputs import HERE, OUTPUTS, copied

EXACT = os.environ.get("JEPAKIT_EXACT") == "1"
RTOL = 1e-5
# Where rounding grows: an 8-bit pixel that falls on the other side, a median absolute deviation, an ill-posed ridge.
LOOSER = {"resume-": 2e-3, "score": 5e-3, "forecast": 5e-2, "probe-": 1e-3}
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")


def differences(before: str, now: str, rtol: float, exact: bool) -> list[str]:
    """The lines that differ: in a word, or in a number by more than `rtol`; if `exact`, in any letter."""
    old, new = before.splitlines(), now.splitlines()
    if len(old) != len(new):
        return [f"{len(old)} lines became {len(new)}"]
    return [f"{a!r} became {b!r}" for a, b in zip(old, new, strict=True) if not agree(a, b, rtol, exact)]


def agree(a: str, b: str, rtol: float, exact: bool) -> bool:
    """Whether two lines are the same, numbers to within `rtol` where not `exact`."""
    if a == b or exact:
        return a == b
    if a.startswith("digest") and b.startswith("digest"):
        return True
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=True)
    # A whole number such as a step, a count or a class is not subject to rounding.
    return all(x == y if whole(x) and whole(y) else near(float(x), float(y), rtol) for x, y in pairs)


def whole(number: str) -> bool:
    return number.lstrip("-").isdigit()


def near(a: float, b: float, rtol: float) -> bool:
    return math.isclose(a, b, rel_tol=rtol, abs_tol=rtol)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_frozen_run_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    with copied(HERE, tmp_path):
        found = OUTPUTS[name]()
    rtol = next((value for start, value in LOOSER.items() if name.startswith(start)), RTOL)
    assert not differences((HERE / "expected" / name).read_text(), found, rtol, EXACT)


def test_nothing_is_expected_that_is_not_computed() -> None:
    assert {path.name for path in (HERE / "expected").iterdir()} == OUTPUTS.keys()


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("loss 0.125 at 3", "loss 0.1250001 at 3", True),
        ("loss 0.125 at 3", "loss 0.1251 at 3", False),
        ("loss 0.125 at 3", "loss 0.125 at 4", False),
        ("a.csv,1.5", "b.csv,1.5", False),
        ("digest 0a", "digest 0b", True),
        ("one", "one\ntwo", False),
    ],
)
def test_texts_are_the_same_where_they_differ_by_rounding_alone(before: str, now: str, same: bool) -> None:
    assert (not differences(before, now, RTOL, exact=False)) == same
    assert differences(before, now, RTOL, exact=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The data of all cases in the working directory."""
    with prepared(tmp_path_factory.mktemp("frozen")):
        yield
    source_of.cache_clear()


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return found


def close(before: Any, now: Any) -> bool:
    """Whether an entry of batches.json holds: whole numbers by their digest, others by their sums."""
    if EXACT or before == now:
        return bool(before == now)
    if isinstance(before[1], list):  # the signal: what it says, and its statistics
        return before[0] == now[0] and all(near(a, b, RTOL) for a, b in zip(before[1], now[1], strict=True))
    if before[0] != now[0] or before[2].keys() != now[2].keys():
        return False
    return all(close_sums(sums, now[2][name]) for name, sums in before[2].items())


def close_sums(before: list[float], now: list[float]) -> bool:
    """Whether both sums are the same but for rounding, which moves an 8-bit pixel by a whole step."""
    rtol = 1e-3 if all(v.is_integer() for v in before) else RTOL
    return all(abs(a - b) <= rtol * before[1] for a, b in zip(before, now, strict=True))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", CASES)
def test_a_kind_of_data_has_the_batches_that_it_had(name: str, recorded: dict[str, dict[str, Any]]) -> None:
    # One seed takes a third of the time, and what changes a batch changes it for every seed.
    seeds = SEEDS if EXACT else SEEDS[:1]
    now = json.loads(json.dumps(computed(name, seeds)))
    left_out = {f"seed {seed}" for seed in SEEDS if seed not in seeds}
    expected = {part: entry for part, entry in recorded[name].items() if part[:6] not in left_out}
    assert now.keys() == expected.keys()
    assert not [part for part, entry in expected.items() if not close(entry, now[part])]


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", IN_WORKERS[:2] if not EXACT else IN_WORKERS)
def test_workers_make_the_batches_that_the_process_itself_makes(name: str, workers: int) -> None:
    check_workers(name, workers)


def test_no_batches_are_recorded_that_are_not_drawn(recorded: dict[str, dict[str, Any]]) -> None:
    assert recorded.keys() == CASES.keys()
