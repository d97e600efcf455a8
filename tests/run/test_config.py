"""Parsing: recipe < file < flags, by name from our own registries, and one clear sentence for every mistake."""

import re
import sys

import pytest
import yaml

from jepakit import api, data, methods, recipes
from jepakit.run import parse, write
from jepakit.run.families import FAMILIES
from jepakit.run.settings import Run

BASE = Run(method=methods.load("ijepa").Config(), data=data.load("images")())


def change(**flags: str) -> Run:
    return parse.apply_changes(BASE, parse.flags_to_changes({k.replace("__", "."): v for k, v in flags.items()}))


def test_a_flag_beats_the_file_which_beats_the_recipe(tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("optim: {lr: 5.0e-4, clip: 2}\nlength: {batch: 8}\n")
    run = api.settings(api.Request("cifar10-ijepa", config=file, flags={"optim.clip": "3"}))
    assert (run.optim.lr, run.optim.clip, run.length.batch) == (5e-4, 3.0, 8)
    assert run.data == api.settings(api.Request("cifar10-ijepa")).data


def test_the_data_named_on_the_command_line_beat_those_of_a_file(tmp_path):
    (tmp_path / "photos").mkdir()
    file = tmp_path / "more.yaml"
    file.write_text("data: {path: elsewhere, corrupt: fail}\n")
    run = api.settings(api.Request("ijepa", config=file, data=tmp_path / "photos"))
    assert (run.data.path, run.data.corrupt) == (str(tmp_path / "photos"), "fail")


def test_what_is_dumped_is_read_back_unchanged():
    run = change(method__encoder__name="vit_small", method__encoder__patch="[8, 8]", data__size="[32, 32]", seed="4")
    assert parse.from_dict(yaml.safe_load(write.to_yaml(run)), "here") == run


@pytest.mark.parametrize("name", recipes.RECIPES.names())
def test_the_settings_of_every_recipe_are_dumped_and_read_back_unchanged(name):
    run = recipes.load_recipe(name)
    assert parse.from_dict(yaml.safe_load(write.to_yaml(run)), name) == run


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.noun)
def test_every_member_of_a_family_is_dumped_under_a_name_that_leads_back_to_it(family):
    for name in family.names:
        settings = family.default_settings(name)
        assert type(family.default_settings(family.name_of(settings))) is type(settings), name


def test_naming_another_preset_starts_from_that_preset():
    assert change(method__encoder__name="vit_small").method.encoder.width == 384


def test_repeating_the_name_that_is_there_keeps_its_settings():
    small = change(method__encoder__name="vit_small")
    again = parse.apply_changes(small, {"method": {"name": "ijepa", "encoder": {"name": "vit", "depth": 3}}})
    assert (again.method.encoder.width, again.method.encoder.depth) == (384, 3)


def test_a_list_replaces_all_maskers_and_an_index_changes_one():
    two = parse.apply_changes(BASE, {"method": {"masks": [{"name": "multiblock"}, {"name": "random", "ratio": 0.5}]}})
    assert [type(m).__name__ for m in two.method.masks] == ["MultiBlock", "Random"]
    changed = parse.apply_changes(two, parse.flags_to_changes({"method.masks.1.ratio": "0.25"}))
    assert changed.method.masks[1].ratio == 0.25
    assert changed.method.masks[0] == two.method.masks[0]


def test_a_list_of_sections_is_read_from_a_file_and_from_a_flag_and_dumped():
    views = [{"count": 2, "size": [32, 32]}, {"count": 4, "crop": [0.1, 0.3]}]
    from_file = parse.apply_changes(BASE, {"data": {"augment": {"views": views}}})
    assert [(v.count, v.size) for v in from_file.data.augment.views] == [(2, (32, 32)), (4, None)]
    assert change(data__augment__views=yaml.safe_dump(views, default_flow_style=True)) == from_file
    assert parse.from_dict(yaml.safe_load(write.to_yaml(from_file)), "here") == from_file


def test_a_flag_may_hold_a_list_of_names():
    assert len(change(method__masks="[random, multiblock]").method.masks) == 2


def test_another_kind_of_data_keeps_the_path():
    assert write.dump_settings(change(data__path="photos", data__name="arrays").data)["path"] == "photos"


def test_auto_and_null_both_leave_a_setting_open():
    run = parse.apply_changes(BASE, {"loop": {"workers": 3}})
    assert parse.apply_changes(run, {"loop": {"workers": "auto"}}).loop.workers is None
    assert parse.apply_changes(run, {"loop": {"workers": None}}).loop.workers is None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"optim.lr": "fast"}, "optim.lr takes a number, not 'fast'"),
        ({"length.batch": "3.5"}, "length.batch takes a whole number, not '3.5'"),
        ({"data.corrupt": "ski"}, "data.corrupt takes one of skip, fail, not 'ski'"),
        ({"optm.lr": "1"}, "No setting optm. Did you mean optim?"),
        ({"method.encoder.dept": "1"}, "No setting method.encoder.dept. Did you mean method.encoder.depth?"),
        ({"method.name": "ijepaa"}, "No method 'ijepaa'. Did you mean 'ijepa'?"),
        ({"method.encoder.heads": "7"}, "heads 7 does not divide width 192"),
        ({"method.masks.3.num_targets": "1"}, "method.masks has 1, counted from 0"),
        ({"loop": "3"}, "loop is a section with keys device"),
        ({"data.augment.views": "[{cont: 2}]"}, "No setting data.augment.views.0.cont. Did you mean"),
        ({"loop.log_every": "0"}, "loop: log_every is 0; give 1 or more"),
        ({"loop.workers": "-1"}, "loop: workers is -1; give 0 or more"),
        ({"loop.panel_size": "0"}, "loop: panel_size is 0; give 2 or more"),
        ({"length.epochs": "-3"}, "length: epochs is -3; give a number above 0"),
        ({"length.batch": "0"}, "length: batch is 0; give 1 or more"),
        ({"method.masks": "[]"}, "masks is empty"),
        ({"method.ema": "[2, 3]"}, "ema is (2.0, 3.0); give two decays from 0 to 1"),
        ({"method.encoder.depth": "0"}, "depth 0"),
        ({"optim": "adam", "optim.lr": "1"}, "both a value and settings below it"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(flags, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is checked below
        parse.apply_changes(BASE, parse.flags_to_changes(flags))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"method": {"name": "os.system"}},
        {"method": {"name": "antigravity"}},
        {"method": {"class_path": "antigravity"}},
        {"method": {"encoder": {"class_path": "antigravity", "init_args": {}}}},
        {"data": {"name": "antigravity"}},
        {"data": {"augment": {"views": [{"class_path": "antigravity.V"}]}}},
        {"data": {"augment": {"views": {"class_path": "antigravity.V"}}}},
        {"optim": {"lr": {"class_path": "antigravity.V"}}},
        {"evals": {"kinds": [{"class_path": "antigravity.V"}]}},
    ],
)
def test_a_file_that_names_code_is_refused_without_importing_it(entry, tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text(yaml.safe_dump(entry))
    with pytest.raises(ValueError, match=r"is refused|No method|No data|takes a"):
        parse.apply_changes(BASE, parse.read_yaml(file))
    assert "antigravity" not in sys.modules


def test_a_yaml_tag_that_would_run_code_is_refused(tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text("method: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match=r"evil\.yaml is not valid YAML"):
        parse.from_yaml(file)


def test_a_setting_of_another_method_names_its_owner():
    with pytest.raises(ValueError, match=r"method\.cycle_weight is a setting of bijepa, not of ijepa"):
        parse.apply_changes(BASE, {"method": {"cycle_weight": 0.1}})


def test_a_difference_names_each_dotted_key_with_both_values():
    assert write.settings_difference(BASE, change(optim__lr="0.5", method__masks__num_targets="2")) == {
        "optim.lr": (1e-3, 0.5),
        "method.masks.0.num_targets": (4, 2),
    }


def test_a_file_from_before_a_setting_was_renamed_is_read_with_a_note(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("method: {name: ijepa}\nloop: {dear_every: 7}\n")
    assert parse.from_yaml(file).loop.views_every == 7
    assert parse.renaming_notes(parse.read_yaml(file)) == ["loop.dear_every is now called loop.views_every"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("knn", "evals: settings has the entry 'knn'; write KIND.KEY=VALUE, as in knn.k=1"),
        ("k=1", "evals: settings has the entry 'k=1'; write KIND.KEY=VALUE"),
        ("knm.k=1", "Did you mean 'knn'?"),
        ("knn.kk=1", "No setting evals.settings: knn.kk. Did you mean"),
        ("knn.k=many", "evals.settings: knn.k takes a whole number or auto, not 'many'"),
    ],
)
def test_a_wrong_setting_of_a_probe_is_named_before_training(entry, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        api.settings(api.Request("cifar10-ijepa", flags={"evals.settings": f"[{entry}]"}))
