"""Strict papermill: a notebook is run as a batch job, and a wrong parameter stops it before anything is computed.

The source of a notebook is the percent file ``NN_name.py``; ``NN_name.ipynb`` beside it holds the same cells for people
who open it in Jupyter. papermill itself only warns about a parameter that a notebook does not know and then runs with
the default: here that is an error.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import os
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from fedmrg_core.commands.console import ConsoleFilter, last_lines, library_log
from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import read_literal
from fedmrg_core.files.whole_files import atomic_file
from fedmrg_core.paths import REPOSITORY

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from traitlets.config import Config

NOTEBOOKS = pathlib.Path("notebooks")
EXECUTED = pathlib.Path("report/notebooks")  # where an executed notebook goes when the caller names no place
PARAMETERS_TAG = "parameters"
LONGEST_SOCKET_NAME = 100  # bytes; macOS allows 103 with the ending, Linux 107
TYPE_NAMES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "None": type(None)}
_HINTS = {int: "; write decimal digits, without zeros before them", bool: "; write true or false"}

# The kernel inherits these: reproducible hashing, no forked tokenizer threads, no telemetry.
KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


class NotebookFailed(RuntimeError):
    """A cell raised or the kernel died; the sentence names the cell and the partly executed notebook."""


def find_notebook(name: str) -> pathlib.Path:
    """The notebook that `name` means: a path to a .py or .ipynb file, or a bare name.

    A bare name is one in ``notebooks/`` of the current folder or, where that has none, of the repository.

    Raises:
        InputError: there is no such file.
    """
    folders = (NOTEBOOKS, REPOSITORY / NOTEBOOKS)
    bare = [folder / f"{name}{ending}" for folder in folders for ending in (".py", ".ipynb")]
    for path in (pathlib.Path(name), *bare):
        if path.suffix in (".py", ".ipynb") and path.is_file():
            return path
    there = sorted({path.stem for folder in folders for path in folder.glob("*.py")})
    close = difflib.get_close_matches(pathlib.Path(name).stem, there, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(there) or 'none in notebooks/'}."
    raise InputError(f"No notebook {name!r}: expected a .py or .ipynb file or a name in notebooks/; {hint}")


def read_notebook(path: pathlib.Path) -> NotebookNode:
    """Read a percent .py or an .ipynb file as a notebook for the Python kernel of this environment.

    Raises:
        InputError: the file cannot be read as a notebook.
    """
    import jupytext

    try:
        notebook = jupytext.read(path)
    except Exception as error:  # jupytext and nbformat raise many kinds
        raise InputError(f"{path}: not a readable notebook ({error}).") from error
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"  # jupytext draws random ones
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def heading(notebook: NotebookNode, otherwise: str) -> str:
    """The first heading, number and purpose of a notebook of the repository, e.g. "07 · Evaluation"."""
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), otherwise)


def known_parameters(notebook: NotebookNode, name: str) -> dict[str, tuple[type, ...]]:
    """Name and accepted types of every assignment in the cell tagged `parameters`.

    The syntax tree is read rather than papermill's regular expressions, which stumble over ``#`` inside a string. The
    types are those of the annotation if there is one (``float | None``), else the type of the default.

    Raises:
        InputError: a default is not a literal, so that its type cannot be known without running it.
    """
    cells = [cell for cell in notebook.cells if PARAMETERS_TAG in cell.metadata.get("tags", [])]
    known: dict[str, tuple[type, ...]] = {}
    for statement in ast.parse("\n".join(cell.source for cell in cells)).body:
        if isinstance(statement, ast.AnnAssign):
            target, value, annotation = statement.target, statement.value, statement.annotation
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value, annotation = statement.targets[0], statement.value, None
        else:
            continue
        try:
            default = ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise InputError(f"{name}: the default of parameter {ast.unparse(target)!r} must be a literal.") from error
        known[ast.unparse(target)] = _accepted_types(default, annotation)
    return known


def check_parameters(notebook: NotebookNode, name: str, given: Mapping[str, Any]) -> None:
    """Hold the given parameters against the notebook's `parameters` cell.

    Raises:
        InputError: a name is unknown or a value has another type than the default.
    """
    known = known_parameters(notebook, name)
    for key, value in given.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            names = ", ".join(known) or "none"
            raise InputError(f"{name} has no parameter {key!r}; {hint}It knows: {names}.")
        accepted = known[key]
        # bool is a subclass of int in Python, but `seed=true` is a mistake
        fits = bool in accepted if isinstance(value, bool) else isinstance(value, accepted)
        if not fits and not (float in accepted and type(value) is int):
            expected = " or ".join(kind.__name__.replace("NoneType", "null") for kind in accepted)
            got = "null" if value is None else f"{value!r} ({type(value).__name__})"
            hint = _HINTS.get(next(iter(accepted)), "") if isinstance(value, str) else ""
            raise InputError(f"{name}: parameter {key!r} must be {expected}, not {got}{hint}.")


def run_notebook(
    notebook: pathlib.Path, parameters: Mapping[str, Any], output: pathlib.Path | None = None, progress: bool = True
) -> pathlib.Path:
    """Run a notebook with strict parameters; paths inside it are relative to the caller's working directory.

    What the cells print, and what libraries warn about, goes to a log beside the executed notebook; the console has
    the notebook's heading, a bar and the project's own warnings, see :mod:`fedmrg_core.commands.console`.

    Args:
        notebook: a percent .py or an .ipynb file.
        parameters: values for names of its `parameters` cell.
        output: the executed notebook, written only when every cell has run; ``report/notebooks/<name>.ipynb`` if None.
        progress: show papermill's bar over the cells.

    Returns:
        The path of the executed notebook.

    Raises:
        InputError: a parameter is unknown or ill-typed, the file is no notebook, or a cell raised an InputError.
        NotebookFailed: a cell raised anything else, or the kernel died.
    """
    import nbformat

    content = read_notebook(notebook)
    check_parameters(content, notebook.name, parameters)
    target = output or EXECUTED / f"{notebook.stem}.ipynb"
    title, log_path = heading(content, notebook.stem), target.with_suffix(".log")
    print(title, file=sys.stderr)
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with (
        library_log(log_path, command_line(notebook, parameters, target)) as log,
        tempfile.TemporaryDirectory(prefix="fedmrg-") as folder,
        atomic_file(target) as partial,
    ):
        source = pathlib.Path(folder) / f"{notebook.stem}.ipynb"
        nbformat.write(content, source)
        executing = pathlib.Path(folder) / "executing.ipynb"
        try:
            with _inline_figures():
                bar = {"desc": title.partition(" ")[0]} if progress else False
                _execute(source, executing, dict(parameters), bar, log)
        except (InputError, NotebookFailed) as error:
            if executing.exists():
                with atomic_file(failed) as unfinished:
                    unfinished.write_bytes(executing.read_bytes())
            raise type(error)(f"{notebook.name}: {error} The notebook as far as it ran: {failed}.") from None
        partial.write_bytes(executing.read_bytes())
    return target


def command_line(notebook: pathlib.Path, parameters: Mapping[str, Any], output: pathlib.Path) -> str:
    """The shell command that runs this notebook with these parameters."""
    options = [f"-p {shlex.quote(f'{name}={_as_written(value)}')}" for name, value in parameters.items()]
    return " ".join(["fedmrg run", shlex.quote(str(notebook)), *options, "--output", shlex.quote(str(output))])


def parse_parameter(text: str) -> tuple[str, str]:
    """Take ``name=value`` apart.

    Raises:
        InputError: there is no ``=``, or the name is no identifier.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"Parameter {text!r} is not of the form name=value.")
    return name, value


def read_parameters(notebook: NotebookNode, name: str, written: Mapping[str, str]) -> dict[str, Any]:
    """The values that texts stand for, by the types of the notebook's parameters.

    A text parameter takes what is written, quotes and all; a number is of decimal digits without zeros before it, and
    what else there is, is YAML: true, false, null, lists, mappings.

    Raises:
        InputError: a name is unknown, or a text does not stand for a value of the parameter's type.
    """
    known = known_parameters(notebook, name)
    given: dict[str, Any] = {}
    for key, text in written.items():
        accepted = known.get(key, ())
        as_written = str in accepted and not (type(None) in accepted and text == "null")
        try:
            given[key] = text if as_written else read_literal(text) if text else ""
        except InputError as error:
            raise InputError(f"{name}: parameter {key!r}: {error}") from error
    check_parameters(notebook, name, given)
    return given


@contextlib.contextmanager
def _inline_figures() -> Iterator[None]:
    """Let the kernel keep its figures in the notebook, whatever backend this process was told to use."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    try:
        yield
    finally:
        del os.environ["MPLBACKEND"]
        if before is not None:
            os.environ["MPLBACKEND"] = before


def _execute(
    source: pathlib.Path, target: pathlib.Path, parameters: dict[str, Any], bar: dict[str, str] | bool, log: TextIO
) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    errors = ConsoleFilter(log)
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            progress_bar=bar,
            cwd=os.getcwd(),
            stdout_file=log,
            stderr_file=errors,
            config=_kernel_connection(target.parent),
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(_as_sentence(error.evalue)) from error
        print("\n".join(error.traceback), file=sys.stderr)
        raise NotebookFailed(_as_sentence(f"cell {error.exec_count} raised {error.ename}: {error.evalue}")) from error
    except DeadKernelError as error:
        print(last_lines(pathlib.Path(log.name)), file=sys.stderr)
        raise NotebookFailed("the kernel died, most often because memory ran out.") from error
    except RuntimeError as error:
        raise NotebookFailed(f"the kernel did not start ({error}); run the notebook again.") from error
    finally:
        errors.close()


def _kernel_connection(folder: pathlib.Path) -> Config:
    """The kernel is spoken to through socket files in `folder`, which only this user may enter.

    Over TCP, Jupyter picks ports that are free and binds them later: two notebooks that start in the same moment can
    pick the same ones, and one of them dies. TCP is left for where such files are not to be had: Windows, and temporary
    folders with names too long for a socket.
    """
    from traitlets.config import Config

    beginning = str(folder / "kernel")  # of the names of five files, -1 to -5
    if os.name != "posix" or len(os.fsencode(beginning)) > LONGEST_SOCKET_NAME:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": beginning}})


def _accepted_types(default: Any, annotation: ast.expr | None) -> tuple[type, ...]:
    if annotation is not None:
        names = [part.split("[")[0].strip() for part in ast.unparse(annotation).split("|")]
        named = tuple(TYPE_NAMES[name] for name in names if name in TYPE_NAMES)
        if named:
            return named
    return (object,) if default is None else (type(default),)


def _as_written(value: Any) -> str:
    """The text that `read_parameters` reads as this value."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."
