"""The hash of the training code: words about the code leave it as it is, statements do not."""

import pytest

from fedmrg_core import code_state


def hash_of(tmp_path, monkeypatch, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_state, "PACKAGE", tmp_path)
    code_state.training_code_hash.cache_clear()
    try:
        return code_state.training_code_hash()
    finally:
        code_state.training_code_hash.cache_clear()


BEFORE = {"model.py": 'def f(x):\n    """Twice."""\n    return 2 * x\n', "evaluation/score.py": "A = 1\n"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"model.py": 'def f(x):\n    """Two times x."""\n    # because\n    return (2 * x)\n'}, True),
        ({"evaluation/score.py": "A = 2\n"}, True),
        ({"model.py": 'def f(x):\n    """Twice."""\n    return 3 * x\n'}, False),
        ({"other.py": "B = 1\n"}, False),
    ],
)
def test_only_statements_of_training_count(tmp_path, monkeypatch, change, same):
    before = hash_of(tmp_path, monkeypatch, BEFORE)
    assert (hash_of(tmp_path, monkeypatch, {**BEFORE, **change}) == before) is same


def test_what_is_left_out_exists():
    for name in code_state.AFTER_TRAINING:
        assert (code_state.PACKAGE / name).exists(), name
