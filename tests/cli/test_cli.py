"""Every mistake on the command line is one sentence, and the exit code tells whose fault it was."""

import argparse
import errno
import os
import subprocess
from pathlib import Path

import pytest
import support

from jepakit import api
from jepakit.cli import __main__ as cli
from jepakit.cli import arguments
from jepakit.cli.commands import COMMANDS
from jepakit.core.progress import Interrupted


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the sentence of `jepa WORDS`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, error


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("report runs/a --steps 3", "No option --steps for report. Options: --help, --debug, --out\n"),
        ("probe --wieghts context", "No option --wieghts for probe. Did you mean --weights? "),
        ("embed a --data b --out c --tokns", "No option --tokns for embed. Did you mean --tokens? "),
        ("train ijepa --dry_run", "No option --dry_run for train. Did you mean --dry-run? "),
        ("train ijepa --lr=3", "settings are written --section.key VALUE\n"),
        (
            "report a --loop.device cpu",
            "is a setting; only collect, complete, embed, forecast, plan, probe, score, train take settings\n",
        ),
        ("list more", "unexpected 'more'"),
    ],
)
def test_an_unknown_word_is_compared_with_what_the_command_itself_takes(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = told(line.split(), capsys)
    assert code == 2
    assert sentence in error


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("forecast a --data b --out c --horizon two", "jepa: --horizon takes a whole number, not 'two'\n"),
        ("score a --data b --out c --quantile high", "jepa: --quantile takes a number, not 'high'\n"),
        ("forecast a --data b --out c --horizon", "jepa: --horizon needs a value, as in --horizon VALUE\n"),
        ("probe a --kind knn --weights both", "jepa: --weights takes one of target, context, not 'both'\n"),
        ("embed a --data b", "jepa: --out is missing; give it, or see --help\n"),
        (
            "train ijepa --data.size 96",
            "jepa: data.size takes a list [a whole number, a whole number] or auto, not '96'; write for example "
            "--data.size '[96, 96]'\n",
        ),
    ],
)
def test_a_value_that_an_option_cannot_take_is_one_sentence_with_what_it_takes(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(line.split(), capsys) == (2, sentence)


def test_a_recipe_for_data_of_another_kind_says_so_before_the_first_step(tmp_path: Path) -> None:
    support.write_table(tmp_path / "a.csv", 600)
    folder = support.write_pictures(tmp_path / "photos", [f"{k}.png" for k in range(24)])
    with pytest.raises(ValueError, match=r"cifar10-ijepa is made for pictures, and '.*a.csv' holds series"):
        api.train(tmp_path / "a.csv", tmp_path / "run", recipe="cifar10-ijepa", quiet=True)
    assert not (tmp_path / "run").exists()
    seen = support.Recorder()
    short = {"length.batch": 8, "evals.report": False}
    api.train(folder, tmp_path / "run", recipe="series-bijepa", steps=1, settings=short, progress=seen)
    misfits = [k for k, note in enumerate(seen.notes) if "series-bijepa is made for series, and" in note]
    assert misfits == [0]
    fitting = support.Recorder()
    api.train(folder, tmp_path / "other", recipe="cifar10-ijepa", steps=1, settings=short, progress=fitting)
    assert not fitting.said("is made for")


@pytest.mark.parametrize("command", COMMANDS.names())
def test_every_option_that_help_shows_is_known(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = arguments.command_parser(command)
    options = parser.options
    assert "debug" in options
    arguments.check_options(command, parser, [f"--{option}" for option in options])
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{option}" in shown for option in options)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ValueError("give another patch"), 2, "give another patch"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b: Not a directory; give another path"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied; give another path"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 1, "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (FileNotFoundError("the shared memory is gone"), 1, "the shared memory is gone"),
        (ImportError("no module named triton"), 1, "no module named triton"),
        (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
        (RuntimeError("out of memory"), 1, "out of memory"),
        (Interrupted("stopped at step 3 and saved"), 130, "jepa: stopped at step 3 and saved\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_the_exit_code_is_2_only_for_what_the_user_can_mend(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(a: argparse.Namespace) -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.run_guarded(run, argparse.Namespace(debug=False))
    assert stopped.value.code == code
    assert sentence in capsys.readouterr().err


def test_the_traceback_is_there_when_it_is_asked_for() -> None:
    def run(a: argparse.Namespace) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cli.run_guarded(run, argparse.Namespace(debug=True))


@pytest.mark.parametrize("out", ["file/run", "/proc/run"])
def test_an_out_that_cannot_be_written_is_one_sentence_without_an_error_number(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc").is_dir() and out.startswith("/proc"):
        pytest.skip("no /proc here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    line = f"train ijepa --out {out} --data.name synthetic --data.count 16 --length.batch 8 --steps 1"
    code, error = told(line.split(), capsys)
    assert code == 2
    assert f"{out} cannot be written (" in error
    assert "Errno" not in error


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes. Error code 12",
            "4.0 GiB",
        ),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139 GiB", "20.00 MiB"),
    ],
)
def test_too_little_memory_is_said_with_what_helps(error: str, size: str) -> None:
    sentence, code = cli.error_sentence(RuntimeError(error))
    assert sentence.startswith(f"out of memory: {size} more were needed; give a smaller --length.batch")
    assert code == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["list"], ["train", "ijepa", "--print-config"], ["--help"], ["train", "--help"]])
def test_a_command_whose_reader_has_gone_ends_without_a_word(words: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(support.jepa_command(*words), stdout=writer, stderr=subprocess.PIPE, text=True, env=env)
    os.close(writer)
    assert done.stderr == ""
    ignored = unbuffered and "--help" in words  # argparse passes over a help text that cannot be written
    assert done.returncode == (0 if ignored else 141)
