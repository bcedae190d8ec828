# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · A real federation: what if every hospital has a machine of its own?
#
# So far all hospitals shared one process. Here Flower's **SuperLink** runs as the server, and a **SuperNode** for each hospital, under TLS.
# Each has a folder of its own, and what they hand over are two files. All of them listen on loopback, as this is one machine.
#
# The hospitals answer **invented** medical questions (notebook 11). What is checked, and what happens when something breaks:
# `docs/deployment.md`.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "medical_world"
method = "fed-lora"  # a row of methods_medical_qa.yaml
variant = "federation.rounds=2,training.local_epochs=1"  # numbers that differ from profile and row
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# Everything here could be typed into terminals: the notebook calls the same commands.

# %%
import atexit
import re
import shutil
import socket
import subprocess
import sys
import time

import pandas

from fedmrg_core.federation.task import load_task
from fedmrg_core.files.tensor_files import read_tensors
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.run_configuration import configure_run, write_configuration
from fedmrg_core.tasks.medical_qa.inputs import prepare_inputs

# %% [markdown]
# ## What each hospital has before
#
# Its studies, and the base model. On several machines `fedmrg federation client-folder` makes a hospital's folder of its own data; here the
# world is dealt out among three.

# %%
root = workspace_folder(workspace)
run = RunSettings(profile=profile, data=data, method=method, variant=variant, seed=seed)
prepare_inputs(run, root, base_models=base_models)
place = root / "results" / "real_federation" / "machines"
shutil.rmtree(place, ignore_errors=True)

# %% [markdown]
# A run folder with nothing but `config.yaml` says what is to be trained.

# %%
asked = place / "asked"
asked.mkdir(parents=True)
settings, row = run.load()
inputs = {"prepared": run.prepared(root), "base_models": run.base_models(root)}
configuration = configure_run(asked, profile=settings, method=row, data=data, task=run.task, seed=seed, **inputs)
write_configuration(asked, configuration)
roster = load_task(asked).deal(asked, configuration)
pandas.DataFrame([(client.name, client.train) for client in roster.clients], columns=["hospital", "questions"])

# %% [markdown]
# Two helpers: a free port of this machine, and a command that is carried out in the place where all folders lie.


# %%
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# %% [markdown]
# A command's answer is shown as it comes in a terminal.


# %%
def fedmrg(*arguments: object) -> list[str]:
    """A command as a list; `python -m` is the same as the program `fedmrg`."""
    return [sys.executable, "-m", "fedmrg_core.commands.command_line", *map(str, arguments)]


def call(*arguments: object) -> None:
    print(subprocess.run(fedmrg(*arguments), cwd=place, capture_output=True, text=True, check=True).stdout, end="")


# %% [markdown]
# ## From certificates to members
#
# **The server** makes its folder: a certificate authority of its own, a certificate, and an invitation.

# %%
call("federation", "init", "server", "--configuration", "asked", "--port", free_port())
for path in sorted((place / "server").iterdir()):
    print(path.name)

# %% [markdown]
# **Every hospital** makes its folder from the invitation: a key, and an application that names the key's public half.

# %%
models = run.base_models(root)
for name in roster.names:
    given = ["--invitation", "server/invitation.json", "--client-folder", f"asked/clients/{name}"]
    call("site", "init", name, *given, "--base-models", models)

# %% [markdown]
# An application holds no study and no private key.

# %%
application = pandas.read_json(place / roster.names[0] / "application.json", typ="series")
application.drop(["authority", "fingerprint", "versions"]).astype(str).str.slice(0, 60)

# %% [markdown]
# **The server** takes them all in.

# %%
call("federation", "admit", "server", *(f"{name}/application.json" for name in roster.names))

# %% [markdown]
# ## The programs
#
# The SuperLink at the server, a SuperNode at each hospital. On several machines each runs for as long as the federation lasts; here
# they end with the notebook, and after half an hour at the latest.

# %%
programs = []
limit = ["timeout", "1800"] if shutil.which("timeout") else []


def start(name: str, *command: str) -> None:
    with (place / f"{name}.log").open("w") as log:
        programs.append(subprocess.Popen([*limit, *fedmrg(*command)], cwd=place, stdout=log, stderr=log))
    atexit.register(programs[-1].terminate)


# %% [markdown]
# The server comes first, and has to answer.

# %%
start("server", "federation", "serve", "server")
while "Uvicorn running" not in (place / "server.log").read_text() and programs[-1].poll() is None:
    time.sleep(0.5)

# %% [markdown]
# `fedmrg federation run` registers the hospitals' keys, and then waits for all of them.

# %%
log = (place / "run.log").open("w")
running = subprocess.Popen(
    fedmrg("federation", "run", "server", "--test"), cwd=place, stdout=subprocess.PIPE, stderr=log, text=True
)
atexit.register(running.terminate)
while len(list(place.glob("server/nodes/*.registered"))) < len(roster.names) and running.poll() is None:
    time.sleep(0.5)

# %% [markdown]
# A hospital whose key is not registered is not let in, and asks again. These are.

# %%
for name in roster.names:
    start(name, "site", "start", name)

# %% [markdown]
# ## The rounds
#
# They are shown as they come. A message starts a process at its hospital, which takes seconds; on real models the training
# takes longer than that.

# %%
for line in running.stdout:
    if found := re.search(r"round \d+: .*", line):
        print(found[0], flush=True)
assert running.wait() == 0, (place / "run.log").read_text()

# %% [markdown]
# The server's tables are those of a run in one process.

# %%
rounds = pandas.read_csv(place / "server" / "run" / "rounds.csv")
rounds[["round", "client", "status", "num_examples", "validation_loss"]].round(3).style.hide()

# %% [markdown]
# Each hospital has tested its model on its own questions, and answers with numbers alone.

# %%
tests = pandas.read_csv(place / "server" / "run" / "hospital_tests.csv")
tests.pivot(index="client", columns="metric", values="value").round(3)

# %% [markdown]
# ## Who has what
#
# The shared part of the model is everywhere the same. What is a hospital's own lies in its folder alone.

# %%
shared = {
    folder: read_tensors(place / folder / "run" / "model" / "shared.safetensors")
    for folder in ("server", *roster.names)
}
same = [all(bool((one[key] == tensor).all()) for key, tensor in shared["server"].items()) for one in shared.values()]
states = [sorted(path.name for path in (place / folder / "run").glob("hospitals/*")) for folder in shared]
pandas.DataFrame({"the same shared model": same, "states of": states}, index=list(shared))

# %% [markdown]
# What went over the wire, in MiB. The table is kept by the server, message by message.

# %%
ledger = pandas.read_csv(place / "server" / "run" / "ledger.csv")
messages = ledger[ledger["module"] == "message"].pivot_table(
    index="round", columns=["phase", "direction"], values="bytes", aggfunc="sum"
)
(messages / 2**20).round(2)

# %% [markdown]
# ## The end
#
# Who is told to end tells Flower's program, and waits for it.

# %%
for program in programs:
    program.terminate()
print("exit codes:", [program.wait() for program in programs])
