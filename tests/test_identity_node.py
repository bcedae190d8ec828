"""Runs on an EVM node by its URL: it falls silent, loses answers, and comes back. And the audit of what is there."""

from __future__ import annotations

import collections
import pathlib
import shutil

import pytest

pytest.importorskip("web3", reason="needs the optional group identity")

from identity_runs import Node, run, serving  # noqa: E402
from linear_task import CLIENTS  # noqa: E402

from fedmrg_core.federation.gate import ChainUnavailable  # noqa: E402
from fedmrg_core.identity import chain  # noqa: E402
from fedmrg_core.identity.audit import audit_bundle, audit_run  # noqa: E402
from fedmrg_core.identity.evidence import write_bundle  # noqa: E402
from fedmrg_core.identity.keys import make_keys, read_account  # noqa: E402
from fedmrg_core.identity.members import COORDINATOR, identity_folder, keys_folder, open_registry  # noqa: E402

SENDS = 18  # deploy, 4 identities, the run; 2 rounds of open, 3 commitments, close; finish, seal


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(chain, "WAITS", (0.0, 0.0))


def accounts(folder: pathlib.Path) -> list[str]:
    """Keys are made before the run, so that the node's accounts have funds."""
    folders = [keys_folder(folder, name) for name in (COORDINATOR, *CLIENTS)]
    for each in folders:
        make_keys(each)
    return [read_account(each / "account.key").address for each in folders]


def sent(node: Node) -> int:
    """How many transactions the node has in its blocks."""
    client = node.client
    return sum(len(client.eth.get_block(number).transactions) for number in range(client.eth.block_number + 1))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run on a node, its bundle, and the node."""
    folder = tmp_path_factory.mktemp("node") / "run"
    with serving(accounts(folder)) as node:
        run(folder, settings={"chain": node.url})
        bundle = shutil.copy(write_bundle(folder), folder.parent)
        yield folder, pathlib.Path(bundle), node


def test_a_run_on_a_node_is_accounted_for_and_its_bundle_without_the_node(done):
    folder, bundle, node = done
    found = audit_run(folder)
    assert found.problems == [] and len(found.rows) == 6 and sent(node) == SENDS
    node.answers = lambda method: "no"
    offline = audit_bundle(bundle)
    node.answers = lambda method: "yes"
    assert offline.problems == [] and offline.rows == found.rows


@pytest.mark.parametrize("step", range(0, 18, 3))
def test_a_transaction_whose_answer_is_lost_is_not_sent_twice(step, tmp_path):
    folder, seen = tmp_path / "run", collections.Counter()

    def answers(method):
        seen[method] += 1
        return "lost" if method == "eth_sendRawTransaction" and seen[method] == step + 1 else "yes"

    with serving(accounts(folder)) as node:
        node.answers = answers
        run(folder, settings={"chain": node.url})
        assert sent(node) == SENDS
        assert audit_run(folder).problems == []


@pytest.mark.parametrize("last", [3, 9, 12, 17])
def test_a_node_that_falls_silent_stops_the_run_and_it_goes_on(last, tmp_path):
    folder, seen = tmp_path / "run", collections.Counter()
    silent = True

    def answers(method):
        seen[method] += 1
        return "no" if silent and seen["eth_sendRawTransaction"] >= last else "yes"

    with serving(accounts(folder)) as node:
        node.answers = answers
        with pytest.raises(ChainUnavailable, match="start the run again when it does: nothing is lost"):
            run(folder, settings={"chain": node.url})
        silent = False
        run(folder, settings={"chain": node.url})
        assert sent(node) == SENDS
        assert {row["code"] for row in audit_run(folder).rows} == {"admitted"}
        assert audit_run(folder).problems == []


# ---- one changed byte ----


def changed(path: pathlib.Path, place: int, audit, what: pathlib.Path) -> list[str]:
    """Problems while one bit of a file is another."""
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        return audit(what).problems
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("embedded") / "run"
    run(folder, rounds=1)
    write_bundle(folder)
    return folder


def test_one_changed_bit_of_any_file_of_a_run_is_found(embedded):
    keys, bundle = identity_folder(embedded) / "keys", identity_folder(embedded) / "evidence.zip"
    paths = [path for path in sorted(embedded.rglob("*")) if path.is_file() and path.stat().st_size]
    paths = [path for path in paths if keys not in path.parents and path != bundle and path.suffix != ".lock"]
    assert len(paths) > 20
    for path in paths:
        assert changed(path, path.stat().st_size // 2, audit_run, embedded), path
    assert audit_run(embedded).problems == []


def test_one_changed_bit_anywhere_in_a_bundle_is_found(embedded):
    bundle = identity_folder(embedded) / "evidence.zip"
    size = bundle.stat().st_size
    for place in [*range(0, size, size // 40), size - 1]:
        assert changed(bundle, place, audit_bundle, bundle), place
    assert audit_bundle(bundle).problems == []


def test_a_file_that_is_gone_or_was_swapped_with_another_run_s(embedded, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(embedded, folder)
    (folder / "rounds.csv").unlink()
    assert any("rounds.csv is missing" in problem for problem in audit_run(folder).problems)
    shutil.copy(embedded / "rounds.csv", folder)
    rounds = identity_folder(folder) / "rounds" / "round-0001.json"
    rounds.unlink()
    assert any("round 1 is on the chain" in problem for problem in audit_run(folder).problems)


def test_everybody_can_read_the_chain_without_a_key(embedded, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(embedded, folder, ignore=shutil.ignore_patterns("keys"))
    assert audit_run(folder).problems == []
    assert open_registry(folder, None).events()
