"""What is wrong with series is one sentence, with column and row; nothing is trained on."""

import numpy as np
import pytest
from support import rewrite_line, write_table

from jepakit.cli import __main__ as cli
from jepakit.data.check import check_path
from jepakit.data.series.settings import Config


def refused(path, said, **settings):
    with pytest.raises(ValueError, match=said):
        Config(str(path), **settings).open()


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "a.csv"
    write_table(path, 60)
    return path


def test_text_among_numbers_is_named_with_column_and_row(csv):
    rewrite_line(csv, 8, csv.read_text().splitlines()[7].split(",")[2], "broken")
    refused(csv, r"^a\.csv: column 'c1', row 8 holds 'broken', which is not a number; correct it")


def test_the_row_is_the_line_of_the_file_where_lines_are_empty(csv):
    lines = csv.read_text().splitlines()
    lines[20] = lines[20].replace(lines[20].split(",")[1], "oops")
    csv.write_text("\n".join([*lines[:5], "", "", *lines[5:]]))
    refused(csv, r"column 'c0', row 23 holds 'oops'")


def test_times_out_of_order_and_times_twice_are_named(csv):
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([*lines[:10], lines[11], lines[10], *lines[12:]]))
    refused(csv, r"column 'time', row 12 \(2024-01-01T09:00:00\) is before row 11 .*; sort the rows by 'time'")
    csv.write_text("\n".join([*lines[:10], lines[9], *lines[10:]]))
    refused(csv, r"column 'time', row 11 repeats the time of row 10 .*keep one row per time.*data\.entity")
    csv.write_text("\n".join([*lines[:10], "," + lines[10].split(",", 1)[1], *lines[11:]]))
    refused(csv, r"column 'time', row 11 is empty; give every row a time")


def test_a_time_that_is_none_is_named_and_can_be_ignored(csv):
    csv.write_text(csv.read_text().replace("2024-01-01T05:00", "noon"))
    refused(csv, r"column 'time', row 7 holds 'noon', which is not a time; write 2024-01-31 12:00:00")
    assert Config(str(csv), time="none", columns=("c0",), window=60).open().raw(0).shape == (1, 60)


def test_a_long_run_of_missing_values_is_named_and_a_short_one_filled(csv):
    lines = csv.read_text().splitlines()
    for k in range(20, 32):
        lines[k] = ",".join([*lines[k].split(",")[:2], ""])
    csv.write_text("\n".join(lines))
    refused(csv, r"column 'c1' holds no number from row 21 to row 32, 12 in a row; .*data\.fill=12")
    assert len(Config(str(csv), window=20, fill=12).open())


def test_infinity_is_named(csv):
    rewrite_line(csv, 9, csv.read_text().splitlines()[8].split(",")[1], "inf")
    refused(csv, r"column 'c0', row 9 is infinite")


def test_a_constant_channel_is_refused_with_its_rows_before_training(csv):
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([lines[0], *(line.rsplit(",", 1)[0] + ",3" for line in lines[1:])]))
    cfg = Config(str(csv), window=20)
    with pytest.raises(ValueError, match=r"column 'c1' is constant, 3 from row 2 to row 61, in all 60 .*data\.columns"):
        cfg.open().signal()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "time,v\n", r"has no rows"),
        ("a.csv", "time,v\n1,2\n2\n", r"as a table: .*Row #3: Expected 2 columns, got 1"),
        ("a.csv", "v,v\n1,2\n", r"two columns 'v'"),
        ("a.csv", "time,town\n1,Rome\n", r"no numeric column besides time"),
        ("a.csv", "time;v\n1;0,5\n2;0,7\n", r"a\.csv: column 'v', row 2 holds '0,5', a number with a comma; .* point"),
        ("a.csv", "time;n;v\n1;2;-1,5e3\n2;3;0,7\n", r"column 'v', row 2 holds '-1,5e3', a number with a comma"),
        ("a.csv", "time,v\n1,2\n", r"^a\.csv has 1 row; give 2 or more, one per step$"),
        ("a.csv", "entity,v\na,2\nb,3\n", r"^a\.csv/a has 1 row, and no other series has more; give 2 or more"),
        ("a.ts", "@problemName x\n1,2:a\n", r"no line @data"),
        (
            "a.ts",
            "@classLabel true a\n@data\n1,2,x:a\n",
            r"a\.ts line 3, channel 0, value 3 is 'x', not a number; write \?",
        ),
        ("a.ts", "@classLabel true a\n@data\n1,2:1:a\n", r"a\.ts line 3 has channels of different lengths \(2, 1\)"),
        (
            "a.ts",
            "@classLabel true a\n@data\n1,2:a\n1,2:3,4:a\n",
            r"a\.ts line 4 has 2 channels but a\.ts line 3 has 1",
        ),
        ("a.ts", "@timeStamps true\n@data\n(0,1)\n", r"@timeStamps true, which is not supported"),
        ("a.ts", "@classLabel true a\n@data\n", r"no series after @data"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    refused(tmp_path / name, said)


@pytest.mark.parametrize(
    ("x", "settings", "said"),
    [
        (np.zeros((2, 3, 4, 5)), {}, r"array of shape \(2, 3, 4, 5\) and type float64; series are numbers of shape"),
        (np.zeros((2, 3), "U1"), {}, r"array of shape \(2, 3\) and type <U1"),
        (np.zeros((5, 9)), {"layout": "NCT"}, r"layout NCT does not fit an array of shape \(5, 9\)"),
    ],
)
def test_an_array_that_holds_no_series_is_refused_with_its_shape(tmp_path, x, settings, said):
    np.save(tmp_path / "a.npy", x)
    refused(tmp_path / "a.npy", said, **settings)


def test_a_column_that_is_not_there_is_named_with_those_that_are(csv):
    refused(csv, r"no entity column 'machine'; its columns are time, c0, c1: set data\.entity", entity="machine")
    refused(csv, r"has no column 'c9', only time, c0, c1; correct data\.columns", columns=("c9",))


def read(path):
    """What check-data says that training would read."""
    return dict(check_path(str(path)).rows)["training would read"]


def test_check_data_lists_what_training_would_refuse(csv):
    lines = csv.read_text().splitlines()
    lines[30:41] = [",".join([*line.split(",")[:2], ""]) for line in lines[30:41]]
    csv.write_text("\n".join([*lines[:10], lines[9], *lines[10:50], *lines[53:]]))
    found = check_path(str(csv))
    assert [p.problem for p in found.problems] == ["duplicate time", "missing", "gap"]
    assert (
        "jumps in 1 places, first from 2024-01-03T00:00:00 to 2024-01-03T04:00:00 at row 52" in found.problems[2].detail
    )
    rows = dict(found.rows)
    assert rows["series"] == "1"
    assert rows["steps min / median / max"] == "58 / 58 / 58"
    assert rows["missing values"] == "11 of 'c1' (11 in a row)"


def test_check_data_counts_lengths_classes_constants_and_twins(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 2, 20))
    x[:, 1] = 4
    x[5], x[4, :, 15:] = x[0], np.nan
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1] * 3)
    found = check_path(str(tmp_path / "a.npz"))
    rows = dict(found.rows)
    assert (rows["series"], rows["steps min / median / max"]) == ("6", "15 / 20 / 20")
    assert (rows["constant channels"], rows["steps per class"]) == ("1", "0: 55, 1: 60")
    assert [p.problem for p in found.problems] == ["constant", "duplicate"]
    assert rows["training would read"].startswith("nothing: column '1' is constant")


@pytest.mark.parametrize("words", [["check-data"], ["train", "ijepa", "--data"]])
def test_the_command_exits_with_two_and_one_sentence(tmp_path, capsys, csv, words):
    rewrite_line(csv, 8, csv.read_text().splitlines()[7].split(",")[2], "broken")
    with pytest.raises(SystemExit) as end:
        cli.main([*words, str(csv)])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "jepa: a.csv: column 'c1', row 8 holds 'broken', which is not a number; correct it, leave the cell empty, "
        "or leave the column out with data.columns\n"
    )


def test_a_channel_that_is_named_twice_is_refused(csv):
    refused(csv, "columns names 'c0' twice; name every channel once", columns=("c0", "c1", "c0"))


@pytest.mark.parametrize(
    ("rows", "window", "fix"),
    [(2, None, "give longer series"), (60, 60, "give longer series, or train with data.window=30 or less")],
)
def test_a_single_sample_is_refused_before_training_and_no_smaller_batch_is_advised(
    tmp_path, capsys, rows, window, fix
):
    write_table(tmp_path / "a.csv", rows)
    more = ["--data.window", str(window)] if window else []
    words = ["train", "ijepa", "--data", str(tmp_path / "a.csv"), "--data.split", "all", *more]
    with pytest.raises(SystemExit):
        cli.main([*words, "--out", str(tmp_path / "run")])
    said = f"a.csv makes a single sample of {rows} steps, too little to train on; {fix}\n"
    assert capsys.readouterr().err == f"jepa: {said}"
    assert (window is None) == read(tmp_path / "a.csv").startswith("nothing: a.csv makes a single")


def test_a_window_that_is_too_long_is_refused_with_the_longest_series(tmp_path):
    write_table(tmp_path / "a.csv", 60)
    said = (
        r"^a\.csv has 60 steps, fewer than the window of 90; give longer series, or train with data\.window=30 or less$"
    )
    refused(tmp_path / "a.csv", said, window=90)
    write_table(tmp_path / "b.csv", 70)
    refused(tmp_path, r"^b\.csv has 70 steps and no other series has more, fewer than the window of 90", window=90)


@pytest.mark.parametrize("mistake", ["hole", "unsorted", "twice"])
def test_check_data_says_that_training_would_read_nothing_as_training_does(csv, mistake):
    lines = csv.read_text().splitlines()
    if mistake == "hole":
        lines[20:50] = [f"{line.rsplit(',', 1)[0]}," for line in lines[20:50]]
    elif mistake == "unsorted":
        lines[20], lines[21] = lines[21], lines[20]
    else:
        lines[20] = lines[19]
    csv.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"row 21|row 22") as refusal:
        Config(str(csv)).open()
    assert read(csv) == f"nothing: {refusal.value}"
