"""What holds for every test: annotations are checked at run time, one thread, real data found or skipped."""

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Every worker of pytest-xdist reads this file before it collects a test, so the hook is in place in all of them.
assert "jepakit" not in sys.modules, "jepakit was imported before the hook that checks its annotations"
install_import_hook("jepakit", "beartype.beartype")

# Inherited by the subprocesses that tests start; two test workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: JEPAKIT_DATA, else ../shared/data beside the repository; skips where absent."""
    folder = Path(os.environ.get("JEPAKIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set JEPAKIT_DATA to the folder that holds cifar10/, mnist/, …")
    return folder
