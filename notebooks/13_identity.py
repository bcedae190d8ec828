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
# # 13 · Identities on a chain: who sent which update, and can that be proved?
#
# Every hospital has an **identity** on a chain [paper: a blockchain identity scheme for the models of a network; the form here is ours].
# It signs each update and commits the digest on the chain. The server takes an update only if everything matches.
#
# This notebook registers three hospitals by hand, runs a small federation in which an altered update and a revoked identity are
# refused, counts the gas, and ends with an **audit** that finds one changed byte. The pictures are **synthetic**. What each
# word means: `docs/identity.md`.

# %% tags=["parameters"]
profile = "smoke"  # a name in profiles/, or the path of a .yaml file
data = "phantom_findings"  # or phantom_masks
method = "head"  # a row of methods_visual_prompts.yaml
seed = 0
base_models = "stored"  # of the repository, where it has one of the profile; fresh: built here
pot = 1_000_000  # wei that the coordinator shares among the contributors
workspace = ""  # where results are kept; the repository if empty

# %% [markdown]
# Identities are a room of their own, `fedmrg_core/identity/`. It needs the optional group `identity` of packages.

# %%
import pathlib
import re
import shutil
import tempfile
from unittest import mock

import pandas
from IPython.display import Markdown

from fedmrg_core.federation.grid import FIRST_CLIENT_NODE, InProcessGrid
from fedmrg_core.federation.run import run_federation
from fedmrg_core.identity.audit import audit_bundle, audit_run
from fedmrg_core.identity.chain import Refused
from fedmrg_core.identity.contract import SOURCE, contract
from fedmrg_core.identity.embedded import EmbeddedChain, make_chain
from fedmrg_core.identity.enrolment import rotate_key
from fedmrg_core.identity.evidence import write_bundle
from fedmrg_core.identity.keys import make_keys, public_bytes, read_account, read_signing_key
from fedmrg_core.identity.members import metadata_digest, open_registry, read_members
from fedmrg_core.identity.records import read_rounds
from fedmrg_core.identity.registry import Registry, deploy
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.run_configuration import Identities
from fedmrg_core.tasks.visual_prompts.preparing import prepare_base_model, prepare_pictures
from figures import chain_gas, showing

# %% [markdown]
# ## The contract
#
# Written in Vyper, in one file. A part of it is shown wherever it is called; the rest is beside, in `registry.vy`.


# %%
def source_of(*names: str) -> Markdown:
    """Functions of the contract, as they are written."""
    parts = re.split(r"\n\n\n", SOURCE.read_text(encoding="utf-8"))
    found = [part.strip() for name in names for part in parts if f"\ndef {name}(" in part]
    return Markdown("```python\n" + "\n\n\n".join(found) + "\n```")


events = [entry["name"] for entry in contract().abi if entry["type"] == "event"]
print(f"{contract().compiler}, {len(contract().bytecode) // 2 - 1} bytes; events: {', '.join(events)}")
source_of("register", "rotate", "revoke", "_take", "_check_owner")

# %% [markdown]
# ## Three hospitals register, by hand
#
# Each makes two keys: one signs updates (Ed25519), one owns its account on the chain (secp256k1). They stay in its own folder.

# %%
play = pathlib.Path(tempfile.mkdtemp())
for name in ("A", "B", "C"):
    make_keys(play / name)
accounts = {name: read_account(play / name / "account.key") for name in ("A", "B", "C")}
public = {name: public_bytes(read_signing_key(play / name / "signing.pem")) for name in accounts}
pandas.DataFrame(
    {name: [accounts[name].address, public[name].hex()] for name in accounts}, index=["account", "public key"]
).T

# %% [markdown]
# The embedded chain is an EVM in this process. A real one has a URL, and `identities.chain` in a run's configuration says it. Somebody
# deploys the contract once; then each hospital registers its public key, the digest of its name, and that of the model it starts from.

# %%
make_chain(play / "chain", [account.address for account in accounts.values()])
chain = EmbeddedChain(play / "chain")
address = deploy(chain, accounts["A"])
registries = {name: Registry(chain, address, account) for name, account in accounts.items()}
numbers = {name: each.register(public[name], metadata_digest(name), bytes(32)) for name, each in registries.items()}
pandas.DataFrame([vars(registries["A"].identity(number)) for number in numbers.values()], index=numbers)[
    ["number", "owner", "active"]
]

# %% [markdown]
# Nobody but its owner can touch an identity, and a key serves one identity alone. What the contract says to whoever tries:

# %%
tries = {
    "B revokes A": lambda: registries["B"].revoke(numbers["A"]),
    "B takes A's key": lambda: registries["B"].rotate(numbers["B"], public["A"]),
    "C registers A's key": lambda: registries["C"].register(public["A"], metadata_digest("C"), bytes(32)),
}
for what, attempt in tries.items():
    try:
        attempt()
    except Refused as reason:
        print(f"{what}: refused, {str(reason)[:60]}")

# %% [markdown]
# ## A federation with identities
#
# The task of notebook 12, with three centres, few pictures and four rounds. `identities` in the configuration is all that it takes. Everything
# lies in `results/identity/`.

# %%
root = workspace_folder(workspace) / "results" / "identity"
settings = {"profile": profile, "data": data, "method": method, "variant": "federation.rounds=4", "seed": seed}
small = RunSettings(**settings).load()[0]
counts = small.phantom.model_copy(update={"train": 24, "validation": 12, "test": 12})
small = small.model_copy(update={"phantom": counts})

# %% [markdown]
# Three of the centres take part. The pot is the coordinator's.

# %%
summary = prepare_pictures(RunSettings(**settings).prepared(root), data, small)
run = RunSettings(**settings, unseen=list(summary["pictures"])[3:])
prepare_base_model(run.base_models(root), run.prepared(root), data, small, base_models)
folder = run.folder(root)
configuration = run.configuration(root).model_copy(update={"identities": Identities(pot=pot)})

# %% [markdown]
# **Round 1.** On one machine the run makes everybody's keys and registers everybody, the server as well: it is the run's coordinator.

# %%
run_federation(folder, configuration, stop_after_round=1)
members = read_members(folder)
print(
    f"chain {members.chain_id}, contract {members.contract}, run {members.run[:16]}…, coordinator {members.coordinator}"
)
print(members.identities)

# %% [markdown]
# The coordinator opens a round with the digest of the model that it starts from. A hospital that is sent another model does nothing. Each
# hospital commits the digest of its signed update, once.

# %%
source_of("open_round", "commit", "close_round")


# %% [markdown]
# What the chain tells of round 1. The weights are the hospitals' numbers of training pictures, and the digest at the end is that
# of the new model.


# %%
def told(round_number: int) -> pandas.DataFrame:
    """The chain's events of a round, their digests cut."""
    found = [event for event in open_registry(folder, None).events() if event.values.get("round") == round_number]
    rows = [
        {"block": event.block, "event": event.name, **event.values} for event in found if event.name != "RunFinished"
    ]
    table = pandas.DataFrame(rows, dtype=object).drop(columns=["run", "round"]).fillna("")
    return table.map(lambda value: value[:12] + "…" if isinstance(value, str) and len(value) > 32 else value)


told(1)

# %% [markdown]
# ## An altered update
#
# **Round 2.** On its way to the server the second hospital's update is changed: its number of pictures grows by one, so that it would weigh
# more. The signature is of what was sent before.

# %%
answer = InProcessGrid.answer


def altered(grid, node, message):
    """The network between hospital and server, with somebody in it."""
    reply = answer(grid, node, message)
    if node == FIRST_CLIENT_NODE + 1 and message.metadata.message_type == "train":
        reply.content["metrics"]["num-examples"] += 1
    return reply


# %% [markdown]
# The round goes on with the other two.

# %%
with mock.patch.object(InProcessGrid, "answer", altered):
    run_federation(folder, configuration, stop_after_round=2)
codes = pandas.read_csv(folder / "identity.csv")
codes[codes["round"] == 2][["client", "identity", "code", "weight"]]

# %% [markdown]
# ## A revoked identity
#
# **Round 3.** The third hospital's owner ends its identity, while its update is under way. What it has earned before stays its owner's.

# %%
leaving = list(members.identities)[2]


def revoked(grid, node, message):
    """The owner revokes when the update is on its way."""
    reply = answer(grid, node, message)
    if node == FIRST_CLIENT_NODE + 2 and message.metadata.message_type == "train":
        open_registry(folder, leaving).revoke(members.identities[leaving])
    return reply


# %% [markdown]
# **Round 4.** From now on an honest hospital says itself that it may not take part.

# %%
with mock.patch.object(InProcessGrid, "answer", revoked):
    run_federation(folder, configuration, stop_after_round=3)
run_federation(folder, configuration)
pandas.read_csv(folder / "identity.csv").pivot(index="round", columns="client", values="code")

# %% [markdown]
# What the server wrote down of the refused update, and what the table of rounds says.

# %%
refused = next(content for content in read_rounds(folder) if content["round"] == 3)["clients"][leaving]
print(refused["statement"].replace(",", ",\n "))
rounds = pandas.read_csv(folder / "rounds.csv")
rounds[rounds["status"] == "left_out"][["round", "client", "reason"]].style.hide()

# %% [markdown]
# ## What it costs
#
# Gas by function, as each transaction's receipt says it. On the embedded chain it costs nothing.

# %%
gas = pandas.read_csv(folder / "gas.csv").assign(run="run")
chain_gas.by_function(gas).droplevel("run")

# %% [markdown]
# A round takes as many commitments as hospitals, and one transaction each to open and to close it.

# %%
showing.show(chain_gas.draw([folder], root / "figures"))
pandas.read_csv(folder / "chain_timing.csv").round(3)

# %% [markdown]
# ## The incentive
#
# The pot is shared in proportion to the weights of accepted updates. It is pulled, not pushed: every owner withdraws its own part. The last
# one is paid what rounding has left.

# %%
paid = {}
for name, number in members.identities.items():
    registry = open_registry(folder, name)
    paid[name] = registry.due(members.run_bytes, number)
    if paid[name]:
        registry.withdraw(members.run_bytes, number)
print(paid, "left in the pot:", open_registry(folder, None).run(members.run_bytes).pot)
source_of("withdraw", "_due")

# %% [markdown]
# `gas.csv` is written before the run is sealed. What came after it, and the rotation of a key, is read from the chain.

# %%
rotate_key(folder, next(iter(members.identities)))
registry = open_registry(folder, None)
later = {"KeyRotated": "rotate", "Sealed": "seal", "Withdrawn": "withdraw"}
told_of = [(later[event.name], event.transaction) for event in registry.events() if event.name in later]
after = pandas.DataFrame(
    [(name, 1, registry.gas_of(which)) for name, which in told_of], columns=["function", "transactions", "gas"]
)
chain_gas.by_function(after.assign(run="run")).droplevel("run")

# %% [markdown]
# ## The audit
#
# `fedmrg audit RUN` carries the chain out again from its first block and holds every file against it. Every admitted update has its
# transaction.

# %%
found = audit_run(folder)
print(f"{len(found.problems)} problems, {len(found.notes)} notes")
shown = pandas.DataFrame(found.rows)
shown.assign(update=shown["update"].str[:12], transaction=shown["transaction"].str[:14])

# %% [markdown]
# One bit of one byte of the model is changed, in a copy of the run folder.

# %%
copy = play / "copy"
shutil.copytree(folder, copy)
path = next((copy / "model").rglob("*.safetensors"))
content = bytearray(path.read_bytes())
content[-1] ^= 1
path.write_bytes(content)
audit_run(copy).problems

# %% [markdown]
# The **bundle** is one file with the tables, the statements, their signatures and the chain, signed by the server. It can be checked on
# another machine without the run folder. One changed bit is found there, too.

# %%
bundle = write_bundle(folder)
print(bundle.stat().st_size // 1024, "KiB;", len(audit_bundle(bundle).problems), "problems")
content = bytearray(bundle.read_bytes())
content[len(content) // 2] ^= 1
(play / "evidence.zip").write_bytes(content)
print("changed:", len(audit_bundle(play / "evidence.zip").problems), "problem")
shutil.rmtree(play)
