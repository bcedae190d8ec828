"""The console of a step: its errors and the project's own words; the rest is in the log."""

import io
import logging
import warnings

import pytest

from fedmrg_core.commands.console import ConsoleFilter, is_library_line, last_lines, library_log

BAR = "Generating partition_id_to_indices: 1500it [00:00, 1522986.20it/s]"
WARNING = (
    "/somewhere/transformers/modeling_utils.py:3303: FutureWarning: `x` is deprecated. Use `y`.\n  warnings.warn(\n"
)
OWN = "round 3: client centre-a left out: the loss is not finite"


@pytest.mark.parametrize(
    "line",
    [
        "/tmp/ipykernel_1/2.py:1: DeprecationWarning: old",
        "<frozen importlib._bootstrap>:241: RuntimeWarning: size changed",
        "/x/pydantic/main.py:5: PydanticDeprecatedSince20: old",
        "/x/pandas/frame.py:9: Pandas4Warning: old",
        "WARNING:papermill:a parameter is unknown",
        "\x1b[93mWARNING \x1b[0m:   DEPRECATED FEATURE: flwr",
        "INFO :      Starting Flower",
        "2026-01-02 10:00:00,123\tINFO worker.py:1927 -- Started a local Ray instance.",
        "[2026-01-02 10:00:00,123 W 1 2] WARNING raylet",
        "\x1b[36m(ClientAppActor pid=12)\x1b[0m /x/ray/y.py:3: UserWarning: old",
        "W0000 00:00:1700000000.1 1 cuda_executor.cc:1] no device",
        "Executing:  46%|████▌     | 6/13 [00:07<00:07,  1.08s/cell]",
        BAR,
    ],
)
def test_a_line_of_a_library_is_known(line):
    assert is_library_line(line)


@pytest.mark.parametrize(
    "line",
    [
        OWN,
        "Traceback (most recent call last):",
        '  File "/x/y.py", line 3, in f',
        "ValueError: shape (3, 4): expected 5",
        "ERROR :     the client failed",
        "(ClientAppActor pid=12) ValueError: 3",
        "hospital at 10:20: no study",
    ],
)
def test_errors_and_own_words_are_no_librarys(line):
    assert not is_library_line(line)


def test_the_console_has_what_no_library_says_and_the_log_has_everything():
    log, console = io.StringIO(), io.StringIO()
    stream = ConsoleFilter(log, console)
    text = f"{BAR}\r{BAR}\n{WARNING}{OWN}\n  not a continuation\nTraceback (most recent call last):\nthe end"
    for start in range(0, len(text), 7):  # in pieces that end within lines
        stream.write(text[start : start + 7])
    stream.close()
    assert log.getvalue() == text
    assert console.getvalue().splitlines() == [
        OWN, "  not a continuation", "Traceback (most recent call last):", "the end",
    ]  # fmt: skip


def test_warnings_of_a_step_go_to_its_log_which_is_named_when_it_fails(tmp_path, capfd):
    path = tmp_path / "report" / "index.log"
    with library_log(path, "a command"):
        warnings.warn("old ways", UserWarning, stacklevel=1)
        logging.getLogger("papermill").warning("something")
    assert capfd.readouterr().err == ""
    text = path.read_text()
    assert text.startswith("a command\n") and "UserWarning: old ways" in text and "something" in text
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(KeyError), library_log(path, "another command"):
        raise KeyError("x")
    assert str(path) in capfd.readouterr().err
    assert logging.getLogger().handlers == handlers
    assert path.read_text() == "another command\n"


def test_the_end_of_a_log_is_shown_where_there_is_no_message(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(50)))
    assert last_lines(path, 2) == "line 48\nline 49"
