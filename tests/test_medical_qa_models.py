"""Profiles named after published models, each tried on a tiny checkpoint of the same architecture."""

from __future__ import annotations

import pathlib

import pandas
import pytest
import torch
import transformers
from small_questions import WORLD, small_inputs

from fedmrg_core.data.questions.pretraining import pretraining_corpus
from fedmrg_core.data.questions.question import Question
from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.federation.task import load_task
from fedmrg_core.runs.configuration import Profile, load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.medical_qa.evaluating import evaluate_run
from fedmrg_core.tasks.medical_qa.measures import MAIN
from fedmrg_core.tasks.medical_qa.readings import Reader
from fedmrg_core.training.small_llm import byte_level_tokenizer

# As the two families lay out a chat, in few words.
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SHORT = Question("q", "north", "test", "open", "Why?", "so")
MODELS = {
    "qwen3-1.7b": (transformers.Qwen3Config, QWEN),
    "qwen3-8b": (transformers.Qwen3Config, QWEN),
    "llama-3.1-8b": (transformers.LlamaConfig, LLAMA),
}


def checkpoint(folder: pathlib.Path, kind: type, template: str | None) -> pathlib.Path:
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), 400)
    tokenizer.chat_template = template
    if kind is transformers.Qwen3Config:  # it has no token that begins a text
        tokenizer.bos_token = None
    sizes = kind(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        vocab_size=len(tokenizer), max_position_embeddings=1024, head_dim=8, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(profile: Profile, llm: pathlib.Path) -> Profile:
    """The profile with the tiny model, and one round of few tokens."""
    base = profile.base_models.model_copy(update={"llm": str(llm)})
    federation = profile.federation.model_copy(update={"rounds": 1})
    training = profile.training.model_copy(update={"batch_size": 32})
    questions = profile.questions.model_copy(update={"new_tokens": 4})
    return profile.model_copy(
        update={"base_models": base, "federation": federation, "training": training, "questions": questions}
    )


def run(inputs: pathlib.Path, folder: pathlib.Path, profile: Profile) -> None:
    settings = configure_run(
        folder, profile=profile, method=load_method("fed-lora", task="medical_qa"), data="medical_world",
        task="medical_qa", prepared=inputs / "prepared", base_models=inputs / "base", seed=0, threads=1,
    )  # fmt: skip
    run_federation(folder, settings, progress=False)


@pytest.mark.parametrize("name", MODELS)
def test_a_profile_named_after_a_model_trains_one_of_its_architecture(name, tmp_path):
    kind, template = MODELS[name]
    inputs, llm = small_inputs(tmp_path), checkpoint(tmp_path / "llm", kind, template)
    profile = load_profile(name, "medmcqa")
    assert profile.base_models.llm.lower().startswith(("qwen/qwen3", "meta-llama/llama-3.1"))
    assert profile.questions.chat and profile.base_models.precision == "bfloat16"
    run(inputs, tmp_path / "run", changed(profile, llm))
    metrics = evaluate_run(tmp_path / "run").query("scope == 'home' and metric == @MAIN")
    assert {"model", "floor_base"} <= set(metrics["system"]) and metrics["value"].between(0, 1).all()
    task = load_task(tmp_path / "run")
    assert next(task.model.llm.peft.get_base_model().parameters()).dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in task.initial_shared().values())
    layers = {key.split(".")[-2] for key in task.initial_shared()}
    assert layers == set(profile.adapter.target_modules)
    assert len(task.initial_shared()) == 2 * 2 * len(layers)
    answers = pandas.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    chosen = answers.query("system == 'model' and kind == 'choice'")[f"chosen_{MAIN.removeprefix('accuracy_')}"]
    assert set(chosen) <= set("ABCD")


def test_a_model_without_a_chat_template_is_refused_before_any_training(tmp_path):
    inputs, llm = small_inputs(tmp_path), checkpoint(tmp_path / "llm", transformers.LlamaConfig, None)
    with pytest.raises(InputError, match="questions.chat asks for a chat template and the model's tokenizer has none"):
        run(inputs, tmp_path / "run", changed(load_profile("llama-3.1-8b"), llm))
    assert not (tmp_path / "run" / "rounds.csv").exists() and not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("template", [QWEN, LLAMA])
def test_a_chat_stays_whole_where_a_question_is_too_long(template):
    tokenizer = byte_level_tokenizer(pretraining_corpus(40, 0, WORLD), 400)
    tokenizer.chat_template = template
    words = " ".join(f"word{number}" for number in range(400))
    for question in (
        Question("q", "north", "test", "yes-no-maybe", "Does it help?", "no", context=words),
        Question("q", "north", "test", "yes-no-maybe", f"{words}. Does it help?", "no"),
    ):
        read = tokenizer.decode(Reader(tokenizer, "letter", chat=True, longest=120).question(question, room=4))
        empty = tokenizer.decode(Reader(tokenizer, "letter", chat=True).question(SHORT))
        assert read.startswith(empty[: empty.index("Question")]) and read.endswith(empty[empty.index("Answer:") :])
        assert "word399" in read and "word0 " not in read and "Does it help?" in read
        assert len(tokenizer(read).input_ids) <= 120
    assert ("<think>\n\n</think>" in empty) == (template is QWEN)
