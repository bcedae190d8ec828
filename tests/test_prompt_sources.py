"""A prompt source of one's own: one file with its modules and losses, asked for by name in a row."""

from __future__ import annotations

import sys

import pydantic
import pytest
import torch
from small_model import PROFILE, small_model, small_studies
from torch import nn

import fedmrg_core.prompts
from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.prompts import PromptOutput, PromptSettings, PromptSource, prompt_source, source_named
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.runs.training_code import picked_code_hash
from fedmrg_core.tasks.reports.adaptation import adapted_modules
from fedmrg_core.tasks.reports.inference import TestStudies, write_reports
from fedmrg_core.tasks.reports.leaving import leaving
from fedmrg_core.tasks.reports.local_training import train_client, validate_client
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.training.optimisation import build_optimiser

TestStudies.__test__ = False


class BankSettings(PromptSettings):
    count: int = pydantic.Field(3, gt=0)


@prompt_source("bank")
class Bank(PromptSource):
    """The same trained tokens for every image, turned by its pooled feature, and kept short by a loss."""

    own_modules = {"bank": "tokens", "bank_gate": "gate"}
    encoder_paced = frozenset({"bank_gate"})
    own_losses = ("bank_size", "bank_pull")
    settings_type = BankSettings

    def __init__(self, count: int, visual_width: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.tokens, self.gate = nn.Embedding(count, width), nn.Linear(visual_width, width)

    @classmethod
    def build(cls, row, settings, model):
        return cls(settings.count, model.visual_width, model.width)

    def forward(self, tokens, pooled, states=None):
        gate = self.gate(pooled).sigmoid()[:, None]
        return PromptOutput(self.tokens.weight * gate, {"gate": gate})

    def loss_terms(self, output, seen):
        assert len(output.prompts) == len(seen.batch.images)
        return {"bank_size": output.prompts.square().mean(), "bank_pull": output.auxiliary["gate"].mean()}


def content(**settings) -> dict:
    shared = dict.fromkeys(("encoder", "projection", "generic_adapter", "bank_gate"), "shared")
    row = {
        "name": "mine", "description": "", "prompts": "bank", "modules": {**shared, "bank": "personal"},
        "losses": {"bank_size": 0.5}, "prompt_settings": {"count": 5},
    }  # fmt: skip
    return {**row, **settings}


PLAIN = {"encoder": "shared", "projection": "shared"}
ROW = validated(ReportMethod, content(), "row")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("base") / "models", ROW)


def update_of(model, shared, state=None, number=1):
    return train_client(
        model, small_studies(), shared, state, {}, client="a", round_number=number, profile=PROFILE, method=ROW, seed=0,
        progress=False,
    )  # fmt: skip


def test_it_trains_travels_and_stays_as_its_row_says(model):
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    assert "bank_gate/weight" in shared and model.initial_personal.keys() == {"bank/weight"}
    first = update_of(model, shared)
    second = update_of(model, first.shared, first.state, 2)
    assert first.metrics["train_bank_size"] > second.metrics["train_bank_size"] > 0
    assert set(first.metrics) == {"train_language", "train_bank_size", "train_loss"}  # bank_pull has no weight
    assert not torch.equal(second.shared["bank_gate/weight"], shared["bank_gate/weight"])
    kept = second.state.tensors["personal/bank/weight"]
    assert not torch.equal(kept, model.initial_personal["bank/weight"])
    declared = leaving(ROW, model.validated, model.feature_width)
    assert set(declared.training) == set(first.metrics) and "bank" not in declared.modules
    assert {key.partition("/")[0] for key in first.shared} == set(declared.modules)
    measures, _ = validate_client(
        model, small_studies(), second.shared, second.state, client="a", profile=PROFILE, method=ROW
    )
    assert set(measures) == set(declared.validation)


def test_a_report_is_written_with_it(model):
    images = small_studies().pixels[:2]
    texts, output = model.generate(images, "generic_adapter", PROFILE.generation)
    assert len(texts) == 2 and output.prompts.shape == (2, 5, PROFILE.base_models.llm_width)
    instruction = len(model.instruction_ids)
    assert model.prefix_length(4) == 1 + 4 + 5 + instruction
    studies = small_studies(2)
    studies.study_ids = ["one", "two"]
    rows = write_reports(model, studies, "generic_adapter", PROFILE.generation)
    assert [row.states_head for row in rows] == ["", ""]


def test_its_modules_learn_at_the_pace_that_it_names(model):
    optimiser = build_optimiser(model.trainable(), PROFILE.training, ROW)
    paces = {module: ROW.pace_of(module, PROFILE.training) for module in ROW.modules}
    assert paces["bank_gate"] == PROFILE.training.learning_rate
    assert paces["bank"] == PROFILE.training.adapter_learning_rate
    assert [group["pace"] for group in optimiser.param_groups] == list(paces.values())
    assert adapted_modules(ROW) == {"generic_adapter", "bank"}


@pytest.mark.parametrize(
    ("changes", "clue"),
    [
        (
            {"prompts": "banc"},
            r"prompts: prompt source 'banc' is unknown; expected one of bank, diagnosis, generator, none, prom",
        ),
        ({"losses": {"bank_sise": 1.0}}, r"losses\.bank_sise is unknown; expected language"),
        ({"losses": {"bank_size": -1.0}}, r"losses\.bank_size: .*greater than or equal to 0"),
        ({"losses": {"bank_size": True}}, r"losses\.bank_size: "),
        ({"prompts": "none", "prompt_settings": {}, "modules": PLAIN}, r"losses\.bank_size is unknown; expected lang"),
        ({"prompts": "none", "losses": {}, "modules": PLAIN}, "prompt_settings: prompts none: count"),
        ({"modules": {"encoder": "shared", "projection": "shared", "bank": "shared"}}, "needs the modules bank and"),
        ({"modules": {**content()["modules"], "diagnosis_head": "shared"}}, r"modules\.diagnosis_head is none of"),
        ({"prompt_settings": {"number": 5}}, "prompt_settings: prompts bank: number is unknown; expected count"),
        ({"prompt_settings": {"count": 0}}, "prompt_settings: prompts bank: count: .*greater than 0"),
        ({"prompt_settings": {"count": "many"}}, "prompts bank: count: expected a whole number"),
        ({"losses": {"classification": 1.0}}, r"losses\.classification needs the module diagnosis_head"),
    ],
)
def test_a_row_that_does_not_fit_its_source_is_told(changes, clue):
    with pytest.raises(InputError, match=f"^row: .*{clue}") as told:
        validated(ReportMethod, content(**changes), "row")
    assert "\n" not in str(told.value)


def test_rows_without_settings_are_stored_as_before():
    assert "prompt_settings" not in load_method("fedmrg").model_dump(mode="json")
    stored = ROW.model_dump(mode="json")
    assert stored["prompt_settings"] == {"count": 5} and stored["losses"]["bank_size"] == 0.5
    assert validated(ReportMethod, stored, "stored") == ROW


OTHER = """
from fedmrg_core.prompts import NoPrompts, prompt_source

@prompt_source("{name}")
class Other(NoPrompts):
    pass
"""


def test_a_file_beside_the_others_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text(OTHER.format(name="of-mine"))
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.setattr(fedmrg_core.prompts, "__path__", [*fedmrg_core.prompts.__path__, str(tmp_path)])
    assert source_named("of-mine").__name__ == "Other"
    with pytest.raises(
        InputError, match=r"prompt source 'broken' cannot be imported from fedmrg_core\.prompts\.broken"
    ):
        source_named("broken")
    for name in ("source", "no such", "../secret"):
        with pytest.raises(InputError, match="is unknown; expected one of"):
            source_named(name)


def test_another_package_names_its_source_in_an_entry_point(tmp_path, monkeypatch):
    folder = tmp_path / "their_prompts-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-prompts\nVersion: 0\n")
    (folder / "entry_points.txt").write_text("[fedmrg.prompts]\ntheirs = their_prompts_file\n")
    (tmp_path / "their_prompts_file.py").write_text(OTHER.format(name="theirs"))
    monkeypatch.syspath_prepend(str(tmp_path))
    row = {"prompts": "theirs", "modules": PLAIN, "losses": {}, "prompt_settings": {}}
    method = validated(ReportMethod, content(**row), "row")
    assert method.prompt_type.__module__ == "their_prompts_file" in sys.modules
    assert method.picked_code() == ("their_prompts_file",)


def test_its_code_is_part_of_what_a_run_is(tmp_path, monkeypatch):
    """A run goes on only under the same code of its prompt source, wherever that lies."""

    def identity(method):
        folders = {"prepared": "nowhere", "base_models": "nowhere"}
        return RunConfiguration(profile=PROFILE, method=method, data="phantom", threads=1, **folders).identity()

    assert "code" not in identity(load_method("fedmrg")) and load_method("fedmrg").picked_code() == ()
    assert identity(ROW)["code"] == picked_code_hash((__name__,))
    hashes = []
    for text in ("A = 1\n", "A = 2\n", '"""Said better."""\nA = 1  # one\n'):
        (tmp_path / "changing.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        picked_code_hash.cache_clear()
        hashes.append(picked_code_hash(("changing",)))
    assert hashes[0] == hashes[2] != hashes[1]
    own = picked_code_hash(("fedmrg_core.prompts.diagnosis",))
    assert own != picked_code_hash(("fedmrg_core.prompts.source",))
