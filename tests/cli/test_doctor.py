"""The doctor's rows are true of this machine, and tell what limits a training."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import support
import torch

from jepakit import doctor


def test_the_rows_say_what_runs_here_and_that_a_step_works() -> None:
    rows = dict(doctor.diagnose())
    assert rows["torch"] == torch.__version__
    assert rows["python"].startswith(platform.python_version())
    assert f"torch uses {torch.get_num_threads()} threads" in rows["processor"]
    assert "ms in float32" in rows["small step"]
    assert "ms in bfloat16" in rows["small step"]
    assert not [name for name, value in rows.items() if "missing" in value]


def test_it_leaves_the_random_state_as_it_was() -> None:
    before = torch.random.get_rng_state()
    doctor.small_step()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_data_it_compares_reading_with_computing(tmp_path: Path) -> None:
    support.write_pictures(tmp_path, [f"{i}.png" for i in range(24)], side=14)
    rows = dict(doctor.diagnose(str(tmp_path)))
    assert rows["data"].startswith("24 items, read as images")
    assert rows["signal"] == "3 channels, size 14 × 14"
    speed = {name: float(rows[name].split()[0]) for name in ("reading", "computing")}
    assert min(speed.values()) > 0
    assert rows["limit"].startswith("computing" if speed["reading"] > speed["computing"] else "reading")


def test_the_slower_of_reading_and_computing_is_the_limit() -> None:
    assert doctor.limit_sentence(reading=0.1, computing=0.4) == "computing: reading is 4.0 × as fast"
    assert doctor.limit_sentence(reading=0.3, computing=0.1).startswith("reading: computing is 3.0 × as fast")


@pytest.mark.parametrize(
    ("threads", "cores", "load", "best"),
    [(1, 2, 3.0, None), (2, 2, 0.3, None), (2, 2, 1.0, 1), (4, 1, 0.0, 1), (4, 2, 0.3, 2), (4, 2, 3.0, 1)],
)
def test_threads_that_wait_for_a_core_are_a_warning_that_says_how_many_to_have(
    threads: int, cores: int, load: float, best: int | None
) -> None:
    hint = doctor.crowding_warning(threads, cores, load)
    assert (hint is None) == (best is None)
    if hint is not None:
        assert f"torch uses {threads} threads" in hint
        assert hint.endswith(f"; set OMP_NUM_THREADS={best}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to restrict a process to a core here")
def test_a_process_that_is_held_to_one_core_is_told_that_two_threads_are_too_many() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import torch; torch.set_num_threads(2);"
        "from jepakit import doctor; from jepakit.core import devices; assert devices.available_cores() == 1;"
        "print(dict(doctor.machine_rows())['threads'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch uses 2 threads, more than this process has cores (1)")


def test_a_path_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        doctor.diagnose("nowhere/at/all")
