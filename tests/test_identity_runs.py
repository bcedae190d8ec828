"""Runs with identities on the embedded chain: who is let in, what a crash leaves, side by side, every task."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
import shutil

import pytest

pytest.importorskip("web3", reason="needs the optional group identity")

from flwr.app import RecordDict  # noqa: E402
from identity_runs import run, with_identities  # noqa: E402
from linear_runs import configuration  # noqa: E402
from linear_task import CLIENTS  # noqa: E402

from fedmrg_core.federation import grid  # noqa: E402
from fedmrg_core.federation.run import run_federation  # noqa: E402
from fedmrg_core.identity import admission, chain, records  # noqa: E402
from fedmrg_core.identity.audit import audit_run  # noqa: E402
from fedmrg_core.identity.keys import SIGNING, read_signing_key  # noqa: E402
from fedmrg_core.identity.members import keys_folder, open_registry, read_members  # noqa: E402
from fedmrg_core.identity.registry import Registry  # noqa: E402
from fedmrg_core.identity.statement import RECORD, identity_record, payload_digest, read_statement  # noqa: E402


def table(folder: pathlib.Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def trained(folder: pathlib.Path) -> dict[str, bytes]:
    """What training leaves, which identities must not change."""
    paths = [folder / "rounds.csv", *(folder / "model").rglob("*"), *(folder / "checkpoint").rglob("*.safetensors")]
    paths += (folder / "hospitals").rglob("*.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A run without identities."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run_federation(folder, configuration("plain", 0, 2), progress=False)
    assert not (folder / "identity").exists() and "identities" not in (folder / "config.yaml").read_text()
    return trained(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("identities") / "run"
    run(folder, settings={"pot": 1000})
    return folder


def test_it_trains_the_same_and_every_update_is_accounted_for(plain, finished):
    assert trained(finished) == plain
    rows = table(finished, records.TABLE)
    assert [(row["round"], row["client"], row["code"], row["weight"]) for row in rows] == [
        (number, client, "admitted", "32") for number in "12" for client in CLIENTS
    ]
    found = audit_run(finished)
    assert (found.problems, found.notes) == ([], [])
    assert len({row["transaction"] for row in found.rows}) == 6 and all(row["transaction"] for row in found.rows)


def test_the_run_folder_says_what_the_chain_cost(finished):
    gas = {(row["round"], row["function"]): row for row in table(finished, records.GAS)}
    assert {function for number, function in gas if number == "0"} == {"deploy", "register", "open_run"}
    assert gas["2", "finish_run"]["transactions"] == "1"
    assert gas["1", "commit"]["transactions"] == "3" and 100_000 < int(gas["1", "commit"]["gas"]) < 250_000
    assert [row["round"] for row in table(finished, records.TIMING)] == ["1", "2"]


def test_contributors_are_paid_in_proportion_and_once(finished):
    run_name = read_members(finished).run_bytes
    paid = [open_registry(finished, client).due(run_name, number) for client, number in members(finished)]
    assert paid == [333, 333, 333]
    for client, number in members(finished):
        open_registry(finished, client).withdraw(run_name, number)
        with pytest.raises(chain.Refused, match="nothing due"):
            open_registry(finished, client).withdraw(run_name, number)
    assert open_registry(finished, None).run(run_name).pot == 0
    assert audit_run(finished).problems == []


def test_a_damaged_model_is_made_again_and_the_seal_still_holds(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    run_name, (client, number), *_ = read_members(folder).run_bytes, *members(folder)
    if open_registry(folder, client).due(run_name, number):
        open_registry(folder, client).withdraw(run_name, number)
    path = next((folder / "model").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    assert audit_run(folder).problems == [f"{path.relative_to(folder)} was changed after the run was sealed"]
    run(folder, settings={"pot": 1000})
    assert audit_run(folder).problems == []


def members(folder: pathlib.Path):
    return list(read_members(folder).identities.items())


def test_side_by_side_it_ends_with_the_same_bytes(plain, tmp_path):
    run(tmp_path / "run", workers=2)
    assert trained(tmp_path / "run") == plain
    assert audit_run(tmp_path / "run").problems == []


@pytest.mark.parametrize("name", ["scaffold", "compressed"])
def test_what_is_packed_and_what_goes_with_it_is_signed(name, tmp_path):
    run(tmp_path / "run", name)
    assert audit_run(tmp_path / "run").problems == []


# ---- who is not let in ----


class Spoiler:
    """Has hospital b send something else in some rounds; `by_round` says what."""

    def __init__(self, folder: pathlib.Path, by_round: list[str]) -> None:
        self.folder, self.by_round = folder, by_round
        self.earlier: dict[int, RecordDict] = {}
        self.others: dict[int, RecordDict] = {}

    def reply(self, client: str, round_number: int, content: RecordDict) -> RecordDict:
        if client == "a":
            self.others[round_number] = content
        if client != "b":
            return content
        self.earlier[round_number] = RecordDict(dict(content))
        return getattr(self, self.by_round[round_number - 1])(content, round_number)

    def signed(self, content: RecordDict, **changes: object) -> RecordDict:
        """The content with a changed statement, signed by b as b would."""
        statement = dataclasses.replace(read_statement(content[RECORD]["statement"]), **changes)
        key = read_signing_key(keys_folder(self.folder, "b") / SIGNING)
        content[RECORD] = identity_record(statement, key.sign(statement.signed_bytes()), 0.0)
        return content

    def unsigned(self, content, _):
        return RecordDict({name: record for name, record in content.items() if name != RECORD})

    def unknown(self, content, _):
        return self.signed(content, identity=99)

    def another_name(self, content, number):
        return self.others[number]  # as a has signed it

    def bad_signature(self, content, _):
        record = content[RECORD]
        record["signature"] = bytes([record["signature"][0] ^ 1]) + record["signature"][1:]
        return content

    def altered(self, content, _):
        content["metrics"]["num-examples"] += 1  # would weigh more
        return content

    def another_run(self, content, _):
        return self.signed(content, run="00" * 32)

    def replayed(self, content, number):
        return self.earlier[number - 1]

    def late(self, content, number):
        return self.signed(content, round=number - 1)

    def wrong_round(self, content, number):
        return self.signed(content, round=number + 1)

    def another_model(self, content, _):
        return self.signed(content, base="00" * 32)

    def another_commitment(self, content, _):
        content["metrics"]["num-examples"] += 1
        return self.signed(content, payload=payload_digest(content))

    def not_committed(self, content, _):
        return content  # `Registry.commit` does nothing for b in this round

    def unusable(self, content, _):
        return content  # the hospital sent NaN, signed

    def no_update(self, content, _):
        raise AssertionError  # the hospital raised

    def admitted(self, content, _):
        return content

    def revoked(self, content, _):
        open_registry(self.folder, "b").revoke(read_members(self.folder).identities["b"])
        return content


CODES = [
    "admitted", "unsigned", "unknown", "another_name", "bad_signature", "altered", "another_run", "replayed", "late",
    "wrong_round", "another_model", "another_commitment", "not_committed", "unusable", "revoked", "no_update",
]  # fmt: skip


def test_each_update_that_is_not_right_is_refused_by_name_and_the_round_goes_on(tmp_path, monkeypatch):
    from linear_task import LinearHospital

    folder, original = tmp_path / "run", grid.InProcessGrid.answer
    spoiler, commit, train = Spoiler(folder, CODES), Registry.commit, LinearHospital.train

    def answer(self, node, received):
        reply = original(self, node, received)
        if received.metadata.message_type == "train" and reply.has_content() and RECORD in reply.content:
            client = CLIENTS[self._contexts[node].node_config["partition-id"]]
            reply.content = spoiler.reply(client, int(received.content["config"]["server-round"]), reply.content)
        return reply

    def commit_some(self, run, number, identity, digest):
        if not (CODES[number - 1] == "not_committed" and identity == read_members(folder).identities["b"]):
            commit(self, run, number, identity, digest)

    def train_some(self, number, *arguments):
        update = train(self, number, *arguments)
        if CODES[number - 1] == "unusable" and self.client.name == "b":
            next(iter(update.shared.values())).fill_(float("nan"))
        return update

    monkeypatch.setattr(grid.InProcessGrid, "answer", answer)
    monkeypatch.setattr(Registry, "commit", commit_some)
    monkeypatch.setattr(LinearHospital, "train", train_some)
    run(folder, rounds=len(CODES))
    rows = [row for row in table(folder, records.TABLE) if row["client"] == "b"]
    assert [row["code"] for row in rows] == CODES
    others = [row for row in table(folder, records.TABLE) if row["client"] != "b"]
    assert {row["code"] for row in others} == {"admitted"}
    reasons = {row["round"]: row["reason"] for row in table(folder, "rounds.csv") if row["client"] == "b"}
    assert reasons["6"] == f"altered: {admission.REFUSALS['altered']}" and reasons["16"].startswith("error: NotAMember")
    assert audit_run(folder).problems == []
    assert set(CODES) | {"chain_unavailable"} == {*admission.REFUSALS, "admitted"}


def test_a_hospital_trains_from_no_other_model_than_the_round_s(tmp_path, monkeypatch):
    """The server sends b another one, its digest with it; b does nothing, and the round goes on."""
    from fedmrg_core.federation import downlink, rounds

    folder, original = tmp_path / "run", downlink.with_model

    def tampered(message, sent, news_only, more=None):
        kind, number = message.metadata.message_type, message.content["config"].get("server-round")
        if kind == "train" and number == 2 and message.metadata.dst_node_id == grid.FIRST_CLIENT_NODE + 1:
            tensors = {key: tensor + 1 for key, tensor in sent.tensors.items()}
            full = downlink.to_record(tensors)
            sent = dataclasses.replace(sent, tensors=tensors, digest=downlink.digest_of(tensors), full=full)
            news_only = False
        original(message, sent, news_only, more)

    monkeypatch.setattr(rounds, "with_model", tampered)
    run(folder)
    codes = {(row["round"], row["client"]): row["code"] for row in table(folder, records.TABLE)}
    assert codes.pop(("2", "b")) == "no_update" and set(codes.values()) == {"admitted"}
    reasons = {(row["round"], row["client"]): row["reason"] for row in table(folder, "rounds.csv")}
    assert reasons["2", "b"].startswith("error: ModelNotOnChain")
    assert "the chain has" in (folder / "hospitals" / "errors-1.log").read_text()


def test_a_rotated_key_signs_and_the_old_one_does_not(tmp_path):
    from fedmrg_core.identity.enrolment import rotate_key

    folder = tmp_path / "run"
    run(folder, rounds=3, stop_after_round=1)
    old = (keys_folder(folder, "c") / SIGNING).read_bytes()
    rotate_key(folder, "b")
    rotate_key(folder, "c")
    (keys_folder(folder, "c") / SIGNING).write_bytes(old)
    run(folder, rounds=3)
    codes = [(row["client"], row["code"]) for row in table(folder, records.TABLE) if row["round"] != "1"]
    assert codes == 2 * [("a", "admitted"), ("b", "admitted"), ("c", "no_update")]
    assert audit_run(folder).problems == []


# ---- crashes ----


def test_killed_after_every_transaction_nothing_is_sent_twice(plain, finished, tmp_path, monkeypatch):
    folder, send, calls = tmp_path / "run", chain.Chain.send, []

    def send_and_die(self, account, to, data, *arguments, **options):
        receipt = send(self, account, to, data, *arguments, **options)
        calls.append(data)
        raise KeyboardInterrupt(receipt.transaction)

    with monkeypatch.context() as patch:
        patch.setattr(chain.Chain, "send", send_and_die)
        for _ in range(40):
            try:
                run(folder)
                break
            except KeyboardInterrupt:
                continue
    assert len(calls) == 18 and len({*calls}) == 18
    assert trained(folder) == plain
    assert (folder / records.TABLE).read_text().splitlines()[0] == ",".join(records.COLUMNS)
    assert audit_run(folder).problems == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_beside_the_checkpoint(when, plain, tmp_path, monkeypatch):
    from fedmrg_core.federation import rounds

    folder, save, saved = tmp_path / "run", rounds.save_checkpoint, collections.Counter()

    def save_and_die(path, state, fingerprint):
        saved[state.round_number] += 1
        first = saved[state.round_number] == 1 and state.round_number == 1
        if when == "after" or not first:
            save(path, state, fingerprint)
        if first:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "save_checkpoint", save_and_die)
        for _ in range(3):
            try:
                run(folder)
            except KeyboardInterrupt:
                continue
    assert trained(folder) == plain
    assert audit_run(folder).problems == []
    assert len((folder / "identity" / "chain" / "blocks.jsonl").read_text().splitlines()) == 18


def test_what_was_committed_is_sent_again_and_not_trained_again(tmp_path, monkeypatch):
    """On a GPU a second training could come out otherwise, and a hospital can commit once."""
    from linear_task import LinearHospital

    folder, train, counts = tmp_path / "run", LinearHospital.train, collections.Counter()

    def train_some(self, number, *arguments):
        counts[self.client.name] += 1
        if counts[self.client.name] == 1 and self.client.name == "c":
            raise KeyboardInterrupt
        update = train(self, number, *arguments)
        for tensor in update.shared.values():
            tensor += 0.001 * counts[self.client.name]  # never the same twice
        return update

    monkeypatch.setattr(LinearHospital, "train", train_some)
    with pytest.raises(KeyboardInterrupt):
        run(folder, stop_after_round=1)
    run(folder, stop_after_round=1)
    assert counts == {"a": 1, "b": 1, "c": 2}
    assert {row["code"] for row in table(folder, records.TABLE)} == {"admitted"}


# ---- settings ----


def test_a_run_with_identities_is_another_run(plain, finished, tmp_path):
    from fedmrg_core.errors import InputError

    with pytest.raises(InputError, match="holds a run with another identities"):
        run_federation(finished, configuration("plain", 0, 2), progress=False)
    assert "identities" not in configuration().identity()
    assert with_identities(chain="http://one").identity() == with_identities(chain="http://other").identity()
    assert "identities" not in json.dumps(configuration().model_dump(mode="json"))
