"""Prompt sources: image features in, prompt tokens for a frozen transformer out.

A source is one file. It lies here and is called after its name (``my-prompts`` in ``my_prompts.py``), or in another
package that names it in an entry point of the group ``fedmrg.prompts``. A row of methods.yaml asks for it by name, or
for several joined by "+".
"""

from fedmrg_core.prompts.diagnosis import (
    SMALLEST_DISEASE_WEIGHT,
    DiagnosisPrompts,
    classification_loss,
    consistent_states,
    initial_disease_weights,
    phrase_embeddings,
    updated_disease_weights,
)
from fedmrg_core.prompts.joined import JOIN, JoinedPrompts, source_named
from fedmrg_core.prompts.source import (
    NoPrompts,
    PromptOutput,
    PromptSettings,
    PromptSource,
    SeenReports,
    Surroundings,
    prompt_source,
)

__all__ = [
    "JOIN",
    "SMALLEST_DISEASE_WEIGHT",
    "DiagnosisPrompts",
    "JoinedPrompts",
    "NoPrompts",
    "PromptOutput",
    "PromptSettings",
    "PromptSource",
    "SeenReports",
    "Surroundings",
    "classification_loss",
    "consistent_states",
    "initial_disease_weights",
    "phrase_embeddings",
    "prompt_source",
    "source_named",
    "updated_disease_weights",
]
