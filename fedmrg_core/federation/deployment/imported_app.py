"""To import this module is to import the app and the task whose names the environment gives.

For a fork server, which takes names of modules and knows nothing of apps and tasks. What cannot be imported is no error
here: the process that runs the app says so, and the log has the sentence.
"""

from __future__ import annotations

import contextlib
import importlib
import os

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment.program_environment import APP, TASK
from fedmrg_core.runs.task_registry import make_task

with contextlib.suppress(InputError, ImportError):
    if APP in os.environ:
        importlib.import_module(os.environ[APP])
    if TASK in os.environ:
        make_task(os.environ[TASK])
