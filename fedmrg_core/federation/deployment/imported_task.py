"""To import this module is to import the client app and the task whose name the environment gives.

For a fork server, which takes names of modules and knows nothing of tasks. A task that cannot be imported is no error
here: the process that answers a message says so, and its hospital's log has the sentence.
"""

from __future__ import annotations

import contextlib
import os

import fedmrg_core.federation.client_app  # noqa: F401
from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment.superlink import TASK
from fedmrg_core.runs.task_registry import make_task

if TASK in os.environ:
    with contextlib.suppress(InputError):
        make_task(os.environ[TASK])
