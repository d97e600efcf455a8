"""Rows of metrics.jsonl are read in one way, by a run that goes on and by the report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jepakit.reporting import records
from jepakit.run.metrics import Journal, read_rows

LINES = ('{"step": 1}', "", '{"step": 2}', '{"step": 3, "lo', "[4]", '{"step": 5}')


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose third row was cut short, and whose fourth is no object."""
    (tmp_path / "metrics.jsonl").write_text("\n".join(LINES))
    return tmp_path


def test_a_line_that_is_no_object_is_none_and_a_blank_one_is_nothing(run: Path) -> None:
    assert list(read_rows(run)) == [{"step": 1}, {"step": 2}, None, None, {"step": 5}]


def test_bytes_that_are_no_text_break_their_own_line_only(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n{"step": 2}\n')
    assert list(read_rows(run)) == [{"step": 1}, None, {"step": 2}]


def test_a_run_without_the_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path)) == []


@pytest.mark.parametrize(("start", "kept"), [(0, []), (1, [1]), (9, [1, 2])])
def test_a_run_that_goes_on_keeps_the_rows_up_to_its_step_and_none_after_a_broken_line(
    run: Path, start: int, kept: list[int]
) -> None:
    Journal(run, start).close()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == kept


def test_the_report_shows_every_row_it_can_read_and_counts_the_others(run: Path) -> None:
    record = records.read_record(run)
    assert [row["step"] for row in record.rows] == [1, 2, 5]
    assert record.notes == ("2 of 5 lines of metrics.jsonl could not be read and were left out.",)


def test_rows_are_read_without_torch() -> None:
    code = "import sys, jepakit.reporting.records; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
