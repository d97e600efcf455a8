"""Series are read as they stand in their files: tables, arrays, .ts."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import sine_waves, two_kinds, write_table

from jepakit import data
from jepakit.data.series import clock
from jepakit.data.series.settings import Config


def opened(path, **settings):
    return Config(str(path), **settings).open()


def test_a_window_holds_the_values_that_stand_in_its_rows(tmp_path):
    values = write_table(tmp_path / "a.csv", 100)
    series = opened(tmp_path / "a.csv", window=20, stride=7)
    assert (len(series), series.channels, series.native, series.columns) == (12, 2, (20,), ("c0", "c1"))
    assert series.name(3) == "a.csv[21:41]"
    np.testing.assert_allclose(series.raw(3).numpy(), values[:, 21:41], atol=1e-6)
    assert series.times(3)[0] == np.datetime64("2024-01-01T21:00")


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".tsv", ".parquet"])
def test_a_table_reads_the_same_from_every_format(tmp_path, kind):
    values = write_table(tmp_path / "a.csv", 30)
    text, path = (tmp_path / "a.csv").read_text(), tmp_path / f"b{kind}"
    if kind == ".parquet":
        time = np.datetime64("2024-01-01T00:00", "s") + np.arange(30) * np.timedelta64(60, "m")
        pq.write_table(pa.table({"time": time, "c0": values[0], "c1": values[1]}), path)
    elif kind == ".csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text.replace(",", "\t" if kind == ".tsv" else ","))
    assert data.guess_kind(str(path)) == ("series", "a table of numbers")
    series = opened(path, window=30)
    np.testing.assert_allclose(series.raw(0).numpy(), values, atol=1e-6)
    assert series.times(0)[29] == np.datetime64("2024-01-02T05:00")


def test_columns_of_text_are_left_out_and_said_and_columns_can_be_chosen_in_any_order(tmp_path):
    write_table(tmp_path / "a.csv", 30, columns=3)
    text = (tmp_path / "a.csv").read_text().splitlines()
    rows = [f"{line},{word}" for line, word in zip(text, ["town", *["Rome"] * 30], strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    series = opened(tmp_path / "a.csv", window=30)
    assert series.columns == ("c0", "c1", "c2")
    assert any("text columns are left out: town" in note for note in series.notes)
    assert opened(tmp_path / "a.csv", window=30, columns=("c2", "c0")).raw(0)[1, 1].item() == series.raw(0)[0, 1].item()


def test_rows_of_several_entities_are_told_apart_whatever_their_order(tmp_path):
    lines = ["time,entity,v,label"]
    for t in range(40):
        lines += [f"{t},b,{100 + t},x", f"{t},a,{t},y"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    series = opened(tmp_path / "a.csv", window=10, stride=10)
    assert [series.name(i) for i in (0, 4)] == ["a.csv/b[0:10]", "a.csv/a[0:10]"]
    assert series.raw(1)[0].tolist() == list(range(110, 120))
    assert [series.classes[series.label(i)] for i in (0, 4)] == ["x", "y"]


def test_the_label_of_a_window_is_that_of_most_of_its_rows(tmp_path):
    labels = ["a"] * 14 + ["b"] * 26
    lines = ["v,label", *(f"{t},{label}" for t, label in enumerate(labels))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    series = opened(tmp_path / "a.csv", window=10, stride=10)
    assert [series.classes[series.label(i)] for i in range(4)] == ["a", "b", "b", "b"]


def test_a_table_without_a_header_has_numbered_channels(tmp_path):
    np.savetxt(tmp_path / "a.txt", sine_waves(50, 3).T, delimiter=",")
    series = opened(tmp_path / "a.txt", window=50)
    assert series.columns == ("0", "1", "2")
    np.testing.assert_allclose(series.raw(0).numpy(), sine_waves(50, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "layout", "samples", "channels", "length"),
    [
        ((200,), "auto", 10, 1, 20),
        ((200, 3), "auto", 10, 3, 20),
        ((12, 40), "auto", 12, 1, 40),
        ((200, 30), "auto", 200, 1, 30),
        ((12, 3, 40), "auto", 12, 3, 40),
        ((12, 40, 3), "auto", 12, 3, 40),
        ((200, 30), "TC", 10, 30, 20),
        ((9, 30, 30), "NTC", 9, 30, 30),
    ],
)
def test_the_axes_of_an_array_are_told_by_the_documented_rules(tmp_path, shape, layout, samples, channels, length):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=shape))
    window = {"window": 20, "stride": 20} if samples == 10 else {}
    series = opened(tmp_path / "a.npy", layout=layout, **window)
    assert (len(series), series.channels, series.native) == (samples, channels, (length,))


def test_channels_last_is_turned_so_that_values_stay_with_their_channel(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    assert np.array_equal(opened(tmp_path / "a.npy").raw(2).numpy(), x[2].T)


def test_an_npz_names_its_array_and_finds_the_labels_beside_it(tmp_path):
    x, y = two_kinds(10)
    np.savez(tmp_path / "a.npz", P_X_train=x, P_y_train=y.astype(str), P_X_test=x[:4], P_y_test=y[:4].astype(str))
    path = f"{tmp_path / 'a.npz'}:P_X_test"
    assert data.guess_kind(path)[0] == "series"
    series = opened(path)
    assert [series.label(i) for i in range(4)] == [0, 1, 0, 1]
    assert len(opened(tmp_path / "a.npz", array="P_X_train")) == 10
    with pytest.raises(ValueError, match=r"no array 'x'; it holds P_X_train, P_y_train.*set data\.array"):
        opened(tmp_path / "a.npz")


TS = """#about
@problemName Toy
@timeStamps false
@univariate false
@classLabel true slow fast mixed
@data
1,2,?,4:5,6,7,8:slow
1,2:3,4.5:fast
"""


def test_a_ts_file_gives_channels_labels_and_lengths(tmp_path):
    (tmp_path / "a.ts").write_text(TS)
    series = opened(tmp_path / "a.ts")
    assert (series.channels, series.native, series.has_padding) == (2, (4,), True)
    assert series.classes == ("fast", "mixed", "slow")  # a class without a series keeps its place
    assert [series.label(i) for i in (0, 1)] == [2, 0]
    assert series.raw(0).tolist() == [[1, 2, 2, 4], [5, 6, 7, 8]]  # ? takes the value before it
    assert series.raw(1).tolist() == [[1, 2], [3, 4.5]]


def test_the_archives_ts_and_npz_hold_the_same_series(shared_data):
    folder = shared_data / "timeseries"
    text = opened(folder / "BasicMotions_TRAIN.ts.gz")
    array = opened(folder / "ucr_uea.npz", array="BasicMotions_X_train")
    assert (len(text), text.channels, text.native) == (40, 6, (100,))
    for i in range(40):
        np.testing.assert_allclose(text.raw(i).numpy(), array.raw(i).numpy(), atol=1e-6)
        assert text.classes[text.label(i)] == array.classes[array.label(i)]


def test_nan_at_the_end_of_an_array_shortens_a_series(shared_data):
    series = opened(shared_data / "timeseries" / "ucr_uea.npz", array="JapaneseVowels_X_train")
    assert (int(series.cut.length.min()), series.native, series.has_padding) == (7, (26,), True)
    assert not series.steps.missing.any()


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "path,label\na.png,1\n", "images"),
        ("a.csv", "picture,y\na.jpg,1\n", "images"),
        ("a.csv", "time,v\n1,2\n", "series"),
        ("a.csv", "", "images"),
        ("a.ts", TS, "series"),
    ],
)
def test_a_table_of_pictures_is_not_taken_for_series(tmp_path, name, text, kind):
    (tmp_path / name).write_text(text)
    assert data.guess_kind(str(tmp_path / name))[0] == kind


@pytest.mark.parametrize(
    ("shape", "kind", "found"),
    [
        ((4, 8, 8), np.uint8, "arrays"),
        ((4, 8, 8), np.float32, "arrays"),
        ((4, 3, 8, 8), np.float32, "arrays"),
        ((4, 3, 80), np.float32, "series"),
        ((4, 80), np.int64, "series"),
        ((4, 8, 9), np.uint8, "arrays"),
    ],
)
def test_arrays_of_pictures_and_of_series_are_told_apart_by_shape_and_type(tmp_path, shape, kind, found):
    np.save(tmp_path / "a.npy", np.zeros(shape, kind))
    assert data.guess_kind(str(tmp_path / "a.npy"))[0] == found


def test_a_folder_of_tables_is_read_as_series_and_one_of_pictures_is_not(tmp_path):
    for name in "ab":
        write_table(tmp_path / f"{name}.csv", 40)
    assert data.guess_kind(str(tmp_path)) == ("series", "a folder of series")
    series = opened(tmp_path, window=20)
    assert {series.span(i)[0] for i in range(len(series))} == {"a.csv", "b.csv"}
    (tmp_path / "p.png").touch()
    assert data.guess_kind(str(tmp_path))[0] == "images"


def test_other_data_are_read_by_the_window_and_the_columns_of_the_run(tmp_path):
    write_table(tmp_path / "a.csv", 100, header="time,c0,c1")
    write_table(tmp_path / "b.csv", 60, columns=3, header="time,c1,other,c0")
    old = Config(str(tmp_path / "a.csv"), window=16, stride=8, columns=("c0", "c1"))
    other = data.read_like(old, str(tmp_path / "b.csv")).open()
    assert (other.native, other.columns, other.stride) == ((16,), ("c0", "c1"), 8)


def test_settings_of_pictures_are_not_taken_over_by_series(tmp_path):
    write_table(tmp_path / "a.csv", 100)
    pictures = data.load("images")(path="x", size=(32, 32), split="train", held_out=0.25)
    new = data.read_like(pictures, str(tmp_path / "a.csv"))
    assert isinstance(new, Config)
    assert (new.split, new.held_out, new.augment) == ("train", 0.25, Config().augment)


def offset_times(path, *times):
    path.write_text("\n".join(["time,v", *(f"{t},{k}" for k, t in enumerate(times))]))
    return opened(path).steps


@pytest.mark.parametrize(
    ("times", "offset", "first"),
    [
        (("2024-06-01T00:00:00+02:00", "2024-06-01T01:00:00+02:00"), "+02:00", "2024-06-01 00:00:00+02:00"),
        (("2024-06-01 00:00-0330", "2024-06-01 01:00-0330"), "-03:30", "2024-06-01 00:00:00-03:30"),
        (("2024-06-01T00:00:00Z", "2024-06-01T01:00:00Z"), "+00:00", "2024-06-01 00:00:00+00:00"),
        (("2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00"), "+00:00", "2024-03-31 00:00:00+00:00"),
        (("2024-06-01T00:00:00", "2024-06-01T01:00:00"), "", "2024-06-01 00:00:00"),
        (("2024-06-01", "2024-06-02"), "", "2024-06-01"),
    ],
)
def test_times_keep_the_offset_that_all_have_and_are_of_utc_where_they_have_several(tmp_path, times, offset, first):
    steps = offset_times(tmp_path / "a.csv", *times)
    assert (steps.offset, clock.time_texts(steps.time, steps.offset)[0]) == (offset, first)
    assert np.diff(steps.time) in (np.timedelta64(1, "h"), np.timedelta64(1, "D"))


def test_times_in_text_keep_their_offset_as_those_that_arrow_reads(tmp_path):
    texts = ["2024-06-01T00:00:00.5+02:00", "2024-06-01T01:00:00.5+02:00"]
    pq.write_table(pa.table({"time": texts, "v": [1.0, 2.0]}), tmp_path / "a.parquet")
    steps = opened(tmp_path / "a.parquet").steps
    assert clock.time_texts(steps.time, steps.offset) == [f"2024-06-01 0{k}:00:00.500000+02:00" for k in (0, 1)]


@pytest.mark.parametrize(
    ("zone", "said"), [("+02:00", "2024-06-01 02:00:00+02:00"), ("Europe/Berlin", "2024-06-01 00:00:00+00:00")]
)
def test_a_named_zone_is_written_in_utc_and_an_offset_as_it_is(tmp_path, zone, said):
    time = pa.array(np.array(["2024-06-01T00", "2024-06-01T01"], "M8[ms]"), pa.timestamp("ms", zone))
    pq.write_table(pa.table({"time": time, "v": [1.0, 2.0]}), tmp_path / "a.parquet")
    steps = opened(tmp_path / "a.parquet").steps
    assert clock.time_texts(steps.time, steps.offset)[0] == said
    assert clock.arrow_times(steps.time, steps.offset).cast("int64").to_pylist() == time.cast("int64").to_pylist()


def test_files_of_several_offsets_are_of_utc_and_those_without_are_not_mixed_with_others(tmp_path):
    for name, end in (("a", "+02:00"), ("b", "+01:00")):
        (tmp_path / f"{name}.csv").write_text(f"time,v\n2024-06-01T00:00:00{end},1\n2024-06-01T01:00:00{end},2\n")
    steps = opened(tmp_path).steps
    assert clock.time_texts(steps.time, steps.offset)[::2] == ["2024-05-31 22:00:00+00:00", "2024-05-31 23:00:00+00:00"]
    (tmp_path / "b.csv").write_text("time,v\n2024-06-01T00:00:00,1\n2024-06-01T01:00:00,2\n")
    with pytest.raises(
        ValueError, match=r"^b\.csv has times without an offset from UTC and a\.csv has \+02:00; write all"
    ):
        opened(tmp_path)
    with pytest.raises(ValueError, match="2024-06-01T01:00:00 has no offset from UTC, and others have"):
        offset_times(tmp_path / "c.csv", "2024-06-01T00:00:00+02:00", "2024-06-01T01:00:00")


def test_settings_of_scanpaths_are_not_taken_over_by_series_nor_the_other_way_round(tmp_path):
    write_table(tmp_path / "a.csv", 100)
    gaze = data.load("scanpaths")(path="x", label="image", time="onset")
    assert len(data.read_like(gaze, str(tmp_path / "a.csv")).open())
    old = Config("x", label="state", time="when")
    (tmp_path / "f.json").write_text("[]")
    new = data.read_like(old, str(tmp_path / "f.json"))
    assert (new.label, new.time) == ("class", "")


def test_a_column_of_text_with_numbers_in_it_is_left_out_with_the_row_of_the_first_text(tmp_path):
    cells = ["1.5", "oops", "x"] * 10
    (tmp_path / "a.csv").write_text("\n".join(["v,w,town", *(f"{k},{c},Rome" for k, c in enumerate(cells))]))
    notes = opened(tmp_path / "a.csv").notes
    assert "text columns are left out: w (row 3 holds 'oops'; 10 of 30 are numbers), town" in notes


def test_a_column_without_a_name_that_numbers_the_rows_is_no_channel(tmp_path):
    lines = [f"{k},{k % 7}.5,{k % 5}.25" for k in range(40)]
    (tmp_path / "a.csv").write_text("\n".join([",flow,heat", *lines]))
    series = opened(tmp_path / "a.csv")
    assert series.columns == ("flow", "heat")
    assert "column 1 has no name and numbers the rows, so it is left out" in series.notes
    assert opened(tmp_path / "a.csv", columns=("column 1", "heat")).columns == ("column 1", "heat")


def test_a_column_without_a_name_that_holds_measurements_is_a_channel(tmp_path):
    lines = [f"{k % 7},{k % 5}.25" for k in range(40)]
    (tmp_path / "a.csv").write_text("\n".join([",heat", *lines]))
    assert opened(tmp_path / "a.csv").columns == ("column 1", "heat")


def test_times_in_a_column_without_a_name_are_the_time(tmp_path):
    lines = [f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00:00,{k % 7}.5" for k in range(48)]
    (tmp_path / "a.csv").write_text("\n".join([",flow", *lines]))
    series = opened(tmp_path / "a.csv")
    assert series.columns == ("flow",)
    assert "time from column 'column 1'" in series.notes
