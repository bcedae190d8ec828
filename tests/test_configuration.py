"""Profiles and methods are read strictly: every mistake is one sentence that names the file and the key."""

import pathlib
import pickle

import pytest
import yaml

from fedmrg_core.data.sources import data_source
from fedmrg_core.errors import InputError
from fedmrg_core.federation.task import load_task
from fedmrg_core.files.strict_yaml import dumped, read_literal, read_yaml
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.configuration import apply_variant, load_profile
from fedmrg_core.runs.configuration_format import FORMAT, upgraded
from fedmrg_core.runs.methods import load_method, load_methods
from fedmrg_core.runs.run_configuration import RunConfiguration, read_configuration
from fedmrg_core.tasks.reports.methods import ReportMethod


@pytest.mark.parametrize("path", sorted((REPOSITORY / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_loads(path):
    assert load_profile(path.stem).name == path.stem


def changed_profile(tmp_path, change):
    content = yaml.safe_load((REPOSITORY / "profiles" / "smoke.yaml").read_text())
    change(content)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c["training"].update(learning_rat=1),
            r"mine\.yaml: training\.learning_rat is unknown; expected .*learning_rate",
        ),
        (
            lambda c: c["training"].update(batch_size="many"),
            r"mine\.yaml: training\.batch_size: expected a whole number \(got 'many'\)",
        ),
        (lambda c: c["federation"].update(rounds=0), r"mine\.yaml: federation\.rounds: .*greater than 0"),
        (lambda c: c.pop("phantom"), r"mine\.yaml: phantom: Field required"),
        (lambda c: c.update(by_data={"iu_xry": {}}), r"mine\.yaml: by_data\.iu_xry: expected a data set \(phantom"),
        (lambda c: c.update(by_data={"folder": 3}), r"mine\.yaml: by_data\.folder: expected .* keys and values"),
        (
            lambda c: c.update(by_data={"folder": {"training": {"batch_size": 0}}}),
            r"mine\.yaml: by_data\.folder: training\.batch_size: .*greater than 0",
        ),
    ],
)
def test_bad_profiles_are_told_in_one_sentence(tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_profile(changed_profile(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "line", "sentence"),
    [
        ("federation", "rounds: yes", r"federation\.rounds: expected a whole number \(got 'yes'\)"),
        ("federation", "rounds: true", r"federation\.rounds: expected a whole number \(got 'True'\)"),
        ("federation", 'rounds: "3"', r"federation\.rounds: expected a whole number"),
        ("federation", "rounds: 010", r"federation\.rounds: expected a whole number \(got '010'\)"),
        ("federation", "rounds: 1_0", r"federation\.rounds: expected a whole number"),
        ("federation", "round_timeout: 1:30", r"federation\.round_timeout: expected a number"),
        ("federation", "round_timeout: .inf", r"federation\.round_timeout: Input should be a finite number"),
        ("training", "learning_rate: .inf", r"training\.learning_rate: Input should be a finite number"),
        ("training", "learning_rate: .nan", r"training\.learning_rate: Input should be a finite number"),
        ("training", "learning_rate: 1e999", r"training\.learning_rate: Input should be a finite number"),
        ("training", "own_statistics: yes", r"training\.own_statistics: expected true or false"),
        ("training", "own_statistics: 1", r"training\.own_statistics: expected true or false"),
        ("base_models", "llm_width: -4", r"base_models\.llm_width: Input should be greater than 0"),
        ("base_models", "backbone_widths: [32, 0]", r"base_models\.backbone_widths\.1: Input should be greater than 0"),
        ("base_models", "backbone_widths: [32, on]", r"base_models\.backbone_widths: expected a whole number"),
        ("base_models", "pretraining_learning_rate: 0", r"pretraining_learning_rate: Input should be greater than 0"),
        ("base_models", "llm_width: 10000000000", r"llm_width: 10,000,000,000 is above 1,000,000,000"),
        (
            "base_models",
            "backbone_widths: [32, 1000000001]",
            r"backbone_widths: 1,000,000,001 is above",
        ),
        ("base_models", "llm: 12", r"base_models\.llm: Input should be a valid string"),
    ],
)
def test_numbers_are_numbers_and_in_their_range(tmp_path, section, line, sentence):
    text = (REPOSITORY / "profiles" / "smoke.yaml").read_text()
    name = line.partition(":")[0]
    content = yaml.safe_load(text)
    content[section][name] = "PLACE"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content).replace(f"{name}: PLACE", line))
    with pytest.raises(InputError, match=sentence) as caught:
        load_profile(str(path))
    assert "\n" not in str(caught.value)


def test_a_rate_may_be_written_without_a_point(tmp_path):
    path = changed_profile(tmp_path, lambda c: c["training"].update(learning_rate=0.5))
    pathlib.Path(path).write_text(
        pathlib.Path(path).read_text().replace("learning_rate: 0.5", "learning_rate: 5e-4", 1)
    )
    assert load_profile(path).training.learning_rate == 5e-4
    profile, _ = apply_variant(load_profile(path), load_method("fedmrg"), "training.learning_rate=1e-3")
    assert profile.training.learning_rate == 1e-3
    for value in ("yes", "010", "1_0", "inf", ".inf", "true"):
        with pytest.raises(InputError, match="training.batch_size"):
            apply_variant(profile, load_method("fedmrg"), f"training.batch_size={value}")


@pytest.mark.parametrize(
    "text",
    ["NO", "1e5", "010", "0x10", "1_000", "12:30", "2026-11-01", "true", "null", "", "~", "a: b", "#1", "ก", "<<"],
)
def test_what_is_written_is_read_back_the_same(text):
    content = {"unseen_sites": [text], "number": 1e-5, "whole": 3, "none": None, "truth": False}
    assert read_literal(dumped(content)) == content


def test_stored_configurations_are_read_and_written_as_before():
    """Byte by byte: nothing in them has another meaning than it had."""
    paths = sorted((REPOSITORY / "figures" / "reference" / "smoke").rglob("config.yaml"))
    paths += sorted((REPOSITORY / "figures" / "reference" / "standard").rglob("seed-0/config.yaml"))[:20]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert read_literal(text) == yaml.safe_load(text) and dumped(read_literal(text)) == text
    for path in (REPOSITORY / "methods.yaml", REPOSITORY / "experiments.yaml", *REPOSITORY.glob("profiles/*.yaml")):
        assert read_yaml(path, "file") == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_profile_may_differ_by_data_set(tmp_path):
    path = changed_profile(tmp_path, lambda c: c.update(by_data={"iu_xray": {"federation": {"rounds": 9}}}))
    usual, other = load_profile(path, "phantom-image0.5"), load_profile(path, "iu_xray")
    assert load_profile(path) == usual == load_profile(path, "folder")
    assert other.federation.rounds == 9 != usual.federation.rounds
    assert other.federation.min_clients == usual.federation.min_clients
    assert (other.training, other.name) == (usual.training, "mine")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="'nothing' is unknown; expected one of .*smoke"):
        load_profile("nothing")
    with pytest.raises(InputError, match="'fedmgr' is unknown; expected one of fedmrg"):
        load_method("fedmgr")


def test_broken_yaml_is_named(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(InputError, match=r"broken\.yaml is not valid YAML"):
        load_profile(str(tmp_path / "broken.yaml"))


ADAPTED = {"encoder": "shared", "projection": "shared", "generic_adapter": "shared"}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"modules": {"encoder": "shared"}}, "encoder and projection"),
        ({"model": "r2gen", "modules": {"encoder": "shared"}}, "module decoder"),
        (
            {"modules": {"encoder": "shared", "projection": "shared"}, "client": {"alternating": True}},
            "both shared and personal",
        ),
        ({"modules": {"encoder": "personal", "projection": "personal"}, "client": {"moon": 1}}, "need a shared module"),
        ({"modules": {"encoder": "shared", "projection": "shared"}, "server": {"rule": "fedsgd"}}, r"server\.rule"),
        ({"modules": {"encoder": "shared", "projection": "shared"}, "payload": {"bits": 3}}, r"payload\.bits"),
        (
            {"modules": {"encoder": "shared", "projection": "shared", "generic_adapter_a": "shared"}},
            "come together",
        ),
        (
            {
                "training": "centralised",
                "modules": {"encoder": "shared", "projection": "shared", "generic_adapter": "personal"},
            },
            "no personal module",
        ),
        ({"modules": {"encoder": "shared", "projection": "shared", "table": "shared"}}, "table"),
        ({"modules": {"encoder": "shared", "projection": "borrowed"}}, "borrowed"),
        ({"prompts": "diagnosis", "modules": {"encoder": "shared", "projection": "shared"}}, "diagnosis_head"),
        ({"predicted_prompts": 0.5, "modules": {"encoder": "shared", "projection": "shared"}}, "prompts: diagnosis"),
        (
            {"modules": {"encoder": "shared", "projection": "shared"}, "losses": {"generic_to_specialised": 1}},
            "both generic_adapter and specialised_adapter",
        ),
        ({"boosting": "feddat", "modules": ADAPTED}, "boosting: feddat needs the module specialised_adapter"),
        ({"losses": {"image_report_contrast": 1}, "modules": ADAPTED}, "needs model: wcl or dcl"),
        ({"losses": {"orthogonality": 1}, "modules": ADAPTED}, "needs adapter_kind: adalora"),
        (
            {"server": {"rule": "exact-lora"}, "adapter_kind": "loha", "modules": ADAPTED},
            "exact-lora needs adapter_kind: lora",
        ),
        ({"server": {"momentum": 0.5}, "modules": ADAPTED}, "momentum is of another rule than fedavg"),
        ({"training": "centralised", "losses": {"contrast_inter": 1}, "modules": ADAPTED}, "has one client"),
        ({"training": "centralised", "client": {"fine_tuning_epochs": 1}, "modules": ADAPTED}, "has one client"),
    ],
)
def test_rows_whose_parts_do_not_fit(tmp_path, row, sentence):
    path = tmp_path / "methods.yaml"
    path.write_text(yaml.safe_dump({"mine": {"description": "", "prompts": "none", "losses": {}, **row}}))
    with pytest.raises(InputError, match=rf"method 'mine'.*{sentence}"):
        load_methods(path)


def test_a_row_like_another_takes_over_what_it_does_not_say(tmp_path):
    path = tmp_path / "methods.yaml"
    first = {
        "description": "first",
        "modules": {"encoder": "shared", "projection": "shared", "generic_adapter": "shared"},
        "losses": {"language": 2.0},
    }
    second = {"like": "first", "modules": {"generic_adapter": None, "projection": "personal"}}
    path.write_text(yaml.safe_dump({"first": first, "second": second, "third": {"like": "second", "losses": None}}))
    methods = load_methods(path)
    assert methods["second"].modules == {"encoder": "shared", "projection": "personal"}
    assert (methods["second"].description, methods["second"].losses.language) == ("first", 2.0)
    assert methods["third"].losses.language == 1.0


@pytest.mark.parametrize(
    "rows",
    [
        {"mine": {"like": "yours"}},
        {"mine": {"like": "mine"}},
        {"mine": {"like": "b"}, "b": {"like": "mine"}},
        {"mine": {"like": ["b"]}},
    ],
)
def test_a_row_like_no_other_is_told(tmp_path, rows):
    path = tmp_path / "methods.yaml"
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(InputError, match="like: .* is not another row"):
        load_methods(path)


def test_specialised_adapter_is_personal_in_every_method():
    for method in load_methods().values():
        assert method.modules.get("specialised_adapter", "personal") == "personal", method.name


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "methods.yaml"
    path.write_text("mine: {description: a}\nother: {description: b}\nmine: {description: c}\n")
    with pytest.raises(InputError, match="'mine' stands twice.*line 3"):
        load_methods(path)


@pytest.mark.parametrize("name", ["a/b", "my,row", "My_row", "-x"])
def test_a_name_that_no_folder_could_tell_is_refused(tmp_path, name):
    path = tmp_path / "methods.yaml"
    path.write_text(yaml.safe_dump({name: {"description": "a", "modules": {"encoder": "shared"}}}))
    with pytest.raises(InputError, match="small letters, digits and dashes"):
        load_methods(path)


def test_an_unknown_key_is_answered_with_those_there_are(tmp_path):
    path = tmp_path / "methods.yaml"
    row = {"description": "a", "modules": {"encoder": "shared"}, "losses": {"langage": 1.0}}
    path.write_text(yaml.safe_dump({"mine": row}))
    with pytest.raises(InputError, match="losses.langage is unknown; expected language, classification,"):
        load_methods(path)


def test_stored_runs_of_older_formats_are_read_as_today_s():
    """Every stored configuration, whatever format it was written in."""
    paths = sorted((REPOSITORY / "figures" / "reference").rglob("config.yaml"))
    assert len(paths) >= 202
    formats = {yaml.safe_load(path.read_text(encoding="utf-8")).get("format", 1) for path in paths}
    assert 1 in formats and max(formats) <= FORMAT
    for path in paths:
        configuration = read_configuration(path.parent)
        task = data_source(configuration.data).task
        assert (configuration.task, configuration.format) == (task, FORMAT)


def test_a_stored_row_comes_out_as_it_was_written():
    """Keys in their order and values: what is written of a run today, and its fingerprint, are those of before."""
    added = {"predicted_prompts"}  # after some of the runs
    for path in sorted((REPOSITORY / "figures" / "reference").rglob("config.yaml")):
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))["method"]
        method = read_configuration(path.parent).method.model_dump(mode="json")
        assert method.keys() - stored.keys() <= added
        assert dumped({key: value for key, value in method.items() if key in stored}) == dumped(stored), path


def test_a_configuration_goes_to_another_process():
    folder = REPOSITORY / "figures" / "reference" / "smoke" / "phantom" / "fedmrg" / "seed-0"
    configuration = read_configuration(folder)
    assert pickle.loads(pickle.dumps(configuration)) == configuration == read_configuration(folder)
    assert type(configuration) is RunConfiguration and type(configuration.method) is ReportMethod


@pytest.mark.parametrize(
    ("key", "value", "clue"),
    [
        ("format", FORMAT + 1, "install a newer version"),
        ("format", "two", "expected a number from 1"),
        ("task", "poems", "'poems' is unknown; expected one of .*reports"),
        ("task", "os:system", "'os:system' is unknown"),
        ("experiment", "os:system", "'os:system' is unknown"),
    ],
)
def test_a_configuration_of_another_version_or_task_is_refused(tmp_path, key, value, clue):
    stored = REPOSITORY / "figures" / "reference" / "smoke" / "phantom" / "fedmrg" / "seed-0" / "config.yaml"
    content = yaml.safe_load(stored.read_text(encoding="utf-8"))
    if key == "experiment":
        content = {name: part for name, part in content.items() if name not in ("task", "format")}
    elif key == "task":
        content = upgraded(content, "stored")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content | {key: value}), encoding="utf-8")
    with pytest.raises(InputError, match=clue):
        load_task(tmp_path)
