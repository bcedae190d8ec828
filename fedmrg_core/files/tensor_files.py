"""Files of tensors that are either whole or not there. Apart from `whole_files`: not everybody needs torch."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file


def write_tensors(path: pathlib.Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically.

    Raises:
        OSError: the disk takes nothing more.
    """
    with atomic_file(path) as temporary:
        try:
            safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        except safetensors.SafetensorError as error:
            told = re.search(r"os error (\d+)", str(error))  # it has no other way to say which
            if told is None:
                raise
            number = int(told[1])
            raise OSError(number, os.strerror(number), str(path)) from error


def read_tensors(path: pathlib.Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file; delete the run folder and run again.") from error
