import csv
import gc
import json
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import Tensor

from jepakit.data import Dataset, Unreadable
from jepakit.inference import tables
from jepakit.inference.embed import write_embeddings
from jepakit.types import Batch, Sample, Signal

SUFFIXES = (".parquet", ".npy", ".csv", ".safetensors")
SIGNAL = Signal(channels=1, size=(4, 6))


@dataclass
class Memory(Dataset):
    """A small data set whose items of `broken` cannot be read."""

    n: int = 23
    broken: frozenset[int] = frozenset()
    print: str = "a"
    channels: int = 1
    classes: tuple[str, ...] = ()
    native: tuple[int, ...] | None = (4, 6)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.n

    def name(self, i: int) -> str:
        return f"img, {i}\udcff.png"

    def raw(self, i: int) -> Tensor:
        if i in self.broken:
            raise Unreadable(self.name(i), "torn")
        return torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(i))

    def sample(self, i: int, size: tuple[int, ...]) -> Sample:
        return Sample(self.raw(i))

    def fingerprint(self) -> str:
        return f"{self.print}{self.n}"


@dataclass
class Encoder:
    """Rows as tokens through a fixed matrix, which counts samples and gives up after `stop` of them."""

    scale: float = 1.0
    stop: int = 1000
    width: int = 5
    seen: list[int] = field(default_factory=list)

    def __call__(self, batch: Batch) -> Tensor:
        x = batch.x
        if sum(self.seen) + len(x) > self.stop:
            raise KeyboardInterrupt
        self.seen.append(len(x))
        matrix = torch.linspace(-1, 1, 6 * self.width).reshape(6, self.width) * self.scale
        return x.flatten(1, 2) @ matrix


def read(out: Path) -> tuple[list[str], np.ndarray]:
    """Ids and rows of any format."""
    if out.suffix in tables.ENDINGS_WITH_IDS:
        rows = np.load(out) if out.suffix == ".npy" else load_file(out)["embedding"]
        with out.with_suffix(".ids.csv").open(newline="", encoding="utf-8") as file:
            return [row["id"] for row in csv.DictReader(file)], rows
    if out.suffix == ".parquet":
        content = pq.read_table(out)
        return content["id"].to_pylist(), np.array(content["embedding"].to_pylist(), np.float32)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = np.array([[float(v) for k, v in row.items() if k.startswith("f")] for row in rows], np.float32)
    if "token" not in rows[0]:
        return [row["id"] for row in rows], values
    per = 1 + max(int(row["token"]) for row in rows)
    return [row["id"] for row in rows][::per], values.reshape(-1, per, values.shape[1])


def expected(data: Memory, tokens: bool = False) -> np.ndarray:
    encode = Encoder()
    found = [encode(Batch(data.raw(i)[None]))[0] for i in range(len(data))]
    return torch.stack([t if tokens else t.mean(0) for t in found]).numpy()


def ids(data: Memory) -> list[str]:
    return [data.name(i).replace("\udcff", "\\udcff") for i in range(len(data))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_item_has_its_row_in_the_data_s_order(tmp_path: Path, suffix: str, tokens: bool) -> None:
    data, out = Memory(), tmp_path / f"new/features{suffix}"
    done = write_embeddings(Encoder(), data, SIGNAL, out, tokens=tokens, batch=4)
    names, rows = read(out)
    assert names == ids(data)
    np.testing.assert_allclose(rows, expected(data, tokens), atol=1e-6)
    assert done.shape == rows.shape
    assert (done.out, done.missing, done.resumed) == (out, (), 0)
    left = {out.name, "features.ids.csv"} if suffix in tables.ENDINGS_WITH_IDS else {out.name}
    assert contents(out.parent).keys() == left


class Labelled(Memory):
    """Every third item has no label."""

    def label(self, i: int) -> int:
        return -1 if i % 3 == 0 else i % 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_class_of_every_item_stands_beside_its_id(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"e{suffix}"
    data = Labelled(n=8, classes=("cat, dog", "cow"))
    write_embeddings(Encoder(), data, SIGNAL, out, batch=4)
    wanted = ["" if i % 3 == 0 else data.classes[i % 2] for i in range(8)]
    if suffix == ".parquet":
        assert pq.read_table(out)["label"].to_pylist() == [name or None for name in wanted]
    else:
        beside = tables.ids_path(out) if suffix in tables.ENDINGS_WITH_IDS else out
        with beside.open(newline="", encoding="utf-8") as file:
            assert [row["label"] for row in csv.DictReader(file)] == wanted
    np.testing.assert_allclose(read(out)[1], expected(data), atol=1e-6)
    if suffix == ".safetensors":
        with safe_open(out, "np") as found:
            classes = json.loads(found.metadata()["classes"])
            assert [classes[k] if k >= 0 else "" for k in found.get_tensor("label")] == wanted


# Batches of 4 hold 3, 4, 0, 4, 4, 2 readable items; the last whole batch is computed twice, the ones before it never.
@pytest.mark.parametrize(("stop", "computed"), [(4, 17), (8, 14), (12, 10), (20, 6), (23, 2)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupted_and_run_again_it_is_the_same_to_the_byte(
    tmp_path: Path, suffix: str, stop: int, computed: int
) -> None:
    data, whole, out = Memory(broken=frozenset({2, 8, 9, 10, 11, 22})), tmp_path / "a", tmp_path / "b"
    write_embeddings(Encoder(), data, SIGNAL, whole / f"f{suffix}", batch=4)

    def interrupt(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Encoder(), data, SIGNAL, out / f"f{suffix}", batch=4, progress=interrupt)
    assert not (out / f"f{suffix}").exists()
    again = Encoder()
    assert write_embeddings(again, data, SIGNAL, out / f"f{suffix}", batch=4).resumed == stop
    assert contents(out) == contents(whole)
    assert sum(again.seen) == computed


def test_half_a_batch_on_disk_is_cut_off(tmp_path: Path) -> None:
    data, out = Memory(), tmp_path / "f.npy"
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Encoder(stop=12), data, SIGNAL, out, batch=4)
    part = tmp_path / "f.npy.part"
    with part.open("ab") as file:
        file.write(b"\x01" * 27)
    again = Encoder()
    assert write_embeddings(again, data, SIGNAL, out, batch=4).resumed == 12
    assert again.seen == [4, 4, 4, 3]
    np.testing.assert_allclose(read(out)[1], expected(data), atol=1e-6)


@pytest.mark.parametrize("change", ["weights", "data", "tokens", "batch"])
def test_what_was_begun_with_other_weights_data_or_settings_is_begun_anew(tmp_path: Path, change: str) -> None:
    out, data = tmp_path / "f.npy", Memory()
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Encoder(scale=0.5 if change == "weights" else 1.0, stop=12), data, SIGNAL, out, batch=4)
    data = Memory(print="b") if change == "data" else data
    options = {"tokens": change == "tokens", "batch": 5 if change == "batch" else 4}
    assert write_embeddings(Encoder(), data, SIGNAL, out, **options).resumed == 0  # type: ignore[arg-type]
    np.testing.assert_allclose(read(out)[1], expected(data, change == "tokens"), atol=1e-6)


def test_an_interruption_between_the_rows_and_the_file_costs_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "f.npy", Memory()

    def stopped(rows: object, name: object, out: Path) -> None:
        tables.ids_path(out).write_text("id\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(tables.EMBEDDING_WRITERS, ".npy", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_embeddings(Encoder(), data, SIGNAL, out, batch=4)
    again = Encoder()
    assert write_embeddings(again, data, SIGNAL, out, batch=4).resumed == 23
    assert again.seen == [3]
    assert read(out)[0] == ids(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unreadable_item_keeps_its_row_and_is_named(tmp_path: Path, suffix: str) -> None:
    # One inside a batch, a whole batch, the first and the last.
    data, out = Memory(broken=frozenset({0, 6, 8, 9, 10, 11, 22})), tmp_path / f"f{suffix}"
    done = write_embeddings(Encoder(), data, SIGNAL, out, batch=4)
    names, rows = read(out)
    assert names == ids(data)
    assert set(np.flatnonzero(np.isnan(rows).any(1))) == data.broken
    assert done.missing == tuple(data.name(i) for i in sorted(data.broken))
    good = [i for i in range(23) if i not in data.broken]
    np.testing.assert_allclose(rows[good], expected(Memory())[good], atol=1e-6)


@pytest.mark.parametrize("broken", [range(4), range(20, 23), range(4, 23)])
def test_whole_batches_of_unreadable_items_keep_their_rows(tmp_path: Path, broken: range) -> None:
    done = write_embeddings(Encoder(), Memory(broken=frozenset(broken)), SIGNAL, tmp_path / "f.npy", batch=4)
    assert done.shape == (23, 5)
    assert set(np.flatnonzero(np.isnan(np.load(done.out)).all(1))) == set(broken)


@pytest.mark.parametrize(("identity", "resumed"), [("b", 0), ("a", 12)])
def test_an_encoder_of_another_identity_begins_anew_where_the_last_block_cannot_tell(
    tmp_path: Path, identity: str, resumed: int
) -> None:
    # The last whole batch before the interruption is all NaN, whatever the weights.
    data, out = Memory(broken=frozenset({8, 9, 10, 11})), tmp_path / "f.npy"

    def interrupt(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Encoder(scale=0.5), data, SIGNAL, out, batch=4, identity="a", progress=interrupt)
    assert write_embeddings(Encoder(), data, SIGNAL, out, batch=4, identity=identity).resumed == resumed


@pytest.mark.parametrize("tokens", [False, True])
def test_a_representation_that_is_not_finite_is_an_error_and_no_unreadable_item(tmp_path: Path, tokens: bool) -> None:
    def encode(batch: Batch) -> Tensor:
        s = Encoder()(batch)
        s[1, 0, 0] = torch.nan
        return s

    with pytest.raises(ValueError, match=r"1 of 4 items are not finite, the first of them img, 1.*earlier checkpoint"):
        write_embeddings(encode, Memory(), SIGNAL, tmp_path / "f.npy", tokens=tokens, batch=4)


def test_data_of_which_nothing_can_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the items can be read"):
        write_embeddings(Encoder(), Memory(n=3, broken=frozenset(range(3))), SIGNAL, tmp_path / "f.npy")
    assert not contents(tmp_path)


def test_a_file_that_exists_is_replaced_only_where_asked(tmp_path: Path) -> None:
    out = tmp_path / "f.csv"
    out.write_text("mine")
    encode = Encoder()
    with pytest.raises(ValueError, match=r"f\.csv exists already; give another name, or --overwrite to replace it"):
        write_embeddings(encode, Memory(), SIGNAL, out)
    assert contents(tmp_path) == {"f.csv": b"mine"}
    assert not encode.seen
    write_embeddings(encode, Memory(), SIGNAL, out, overwrite=True)
    assert read(out)[0] == ids(Memory())


def test_the_ids_of_an_npy_file_replace_no_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "f.ids.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"f\.ids\.csv exists already"):
        write_embeddings(Encoder(), Memory(), SIGNAL, tmp_path / "f.npy")


def test_an_ending_that_names_no_format_is_an_error_that_lists_them(tmp_path: Path) -> None:
    for name in ("f.txt", "f"):
        with pytest.raises(ValueError, match=r"use \.parquet, \.npy, \.csv"):
            write_embeddings(Encoder(), Memory(), SIGNAL, tmp_path / name)
    assert not contents(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_data(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "VALUES_PER_CHUNK", 2**12)
    width = 512

    def peak(n: int) -> int:
        gc.collect()
        tracemalloc.start()
        encode, out = Encoder(width=width, stop=n), tmp_path / f"{n}{suffix}"
        try:
            write_embeddings(encode, Memory(n=n), SIGNAL, out, batch=8, overwrite=True)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(8)  # imports
    held = pa.default_memory_pool().max_memory()
    # Garbage that is not collected yet raises a single peak, and rows that are kept would raise them all.
    small, large = (min(peak(n) for _ in range(4)) for n in (64, 512))
    assert large - small < (512 - 64) * 4 * width / 10
    # The pool's peak is that of the whole process: what other tests held before is not ours.
    assert pa.default_memory_pool().max_memory() - held < 2**22


def test_workers_change_nothing(tmp_path: Path) -> None:
    data = Memory(broken=frozenset({3}))
    for workers in (0, 2):
        write_embeddings(Encoder(), data, SIGNAL, tmp_path / f"{workers}.npy", batch=4, workers=workers)
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()


def test_progress_counts_rows_and_the_caller_keeps_its_gradients(tmp_path: Path) -> None:
    told: list[tuple[int, int, bool]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total, torch.is_inference_mode_enabled()))

    write_embeddings(Encoder(), Memory(n=10), SIGNAL, tmp_path / "f.npy", batch=4, progress=progress)
    assert told == [(4, 10, False), (8, 10, False), (10, 10, False)]
