"""The contract as it is deployed: `registry.vy` beside this file, compiled into `registry.json`.

A run needs no compiler. `compiled_now` makes the same from the source, for whoever wants to see it for themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

SOURCE = pathlib.Path(__file__).with_name("registry.vy")
COMPILED = pathlib.Path(__file__).with_name("registry.json")


@dataclasses.dataclass(frozen=True)
class Contract:
    """A compiled contract.

    Attributes:
        source: SHA-256 of the source it was compiled from.
        compiler: name and version.
        abi: functions and events, as Ethereum's tools describe them.
        bytecode: what deploys it, hexadecimal with 0x.
    """

    source: str
    compiler: str
    abi: list[dict[str, Any]]
    bytecode: str

    def deploys(self, code: str) -> bool:
        """Whether this is the code of such a contract, hexadecimal with 0x: the larger part of what deploys it."""
        return code.removeprefix("0x") in self.bytecode and 2 * len(code) > len(self.bytecode)


@functools.cache
def contract() -> Contract:
    """The contract of the package."""
    return Contract(**json.loads(COMPILED.read_text(encoding="utf-8")))


def compiled_now(source: pathlib.Path = SOURCE) -> Contract:
    """Compile a source with Vyper; seconds."""
    import vyper

    text = source.read_text(encoding="utf-8")
    made = vyper.compile_code(text, output_formats=["abi", "bytecode"])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Contract(digest, f"vyper {vyper.__version__.partition('+')[0]}", made["abi"], made["bytecode"])


def write_compiled(path: pathlib.Path = COMPILED) -> None:
    """Compile the source anew into registry.json, after a change of it."""
    path.write_text(json.dumps(dataclasses.asdict(compiled_now()), indent=1) + "\n", encoding="utf-8")
