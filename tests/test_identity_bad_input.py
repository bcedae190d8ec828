"""Bad input about identities: one sentence that names the file or the setting, and before anything is trained."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("web3", reason="needs the optional group identity")

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402
from identity_runs import run, serving  # noqa: E402
from linear_runs import configuration  # noqa: E402
from linear_task import LinearHospital  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fedmrg_core.commands.command_line import app  # noqa: E402
from fedmrg_core.errors import InputError  # noqa: E402
from fedmrg_core.federation.gate import ChainUnavailable  # noqa: E402
from fedmrg_core.federation.run import run_federation  # noqa: E402
from fedmrg_core.files.strict_yaml import validated  # noqa: E402
from fedmrg_core.identity import chain  # noqa: E402
from fedmrg_core.identity.embedded import EmbeddedChain, make_chain  # noqa: E402
from fedmrg_core.identity.keys import make_keys, read_account, read_signing_key  # noqa: E402
from fedmrg_core.identity.members import keys_folder, read_members, write_members  # noqa: E402
from fedmrg_core.identity.registry import Registry  # noqa: E402
from fedmrg_core.runs.run_configuration import Identities  # noqa: E402

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
NOBODY = "0x" + "11" * 20


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch):
    def train(self, number, *arguments):
        raise AssertionError("trained before it was refused")

    monkeypatch.setattr(LinearHospital, "train", train)


def elliptic(password: bytes | None = None) -> bytes:
    plain = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return generate_private_key(SECP256R1()).private_bytes(PEM, PKCS8, plain)


def locked() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"word"))


def public() -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return Ed25519PrivateKey.generate().public_key().public_bytes(PEM, form)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (elliptic, "a key of type EC; expected an Ed25519 key"),
        (locked, "not a private key in PEM without a password"),
        (public, "not a private key in PEM without a password"),
        (lambda: b"hello", "not a private key in PEM without a password"),
        (lambda: b"", "not a private key in PEM without a password"),
    ],
    ids=["elliptic", "locked", "public", "text", "empty"],
)
def test_a_signing_key_of_another_type(content, sentence, tmp_path):
    folder = keys_folder(tmp_path / "run", "b")
    make_keys(folder)
    (folder / "signing.pem").write_bytes(content())
    with pytest.raises(InputError, match=f"{folder / 'signing.pem'}: {sentence}"):
        run(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "hello", "12" * 31, elliptic().decode(), "é" * 64, "00" * 32, "ff" * 32])
def test_an_account_of_another_type(text, tmp_path):
    folder = keys_folder(tmp_path / "run", "b")
    make_keys(folder)
    (folder / "account.key").write_text(text)
    with pytest.raises(InputError, match=f"{folder / 'account.key'}: .*private key") as told:
        run(tmp_path / "run")
    assert text.strip() == "" or text.strip() not in str(told.value)  # a key is not told, not even a wrong one


@pytest.mark.parametrize(("name", "read"), [("signing.pem", read_signing_key), ("account.key", read_account)])
def test_a_key_file_that_cannot_be_read(name, read, tmp_path):
    with pytest.raises(InputError, match=f"{name}: the key file cannot be read .No such file"):
        read(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: the key file cannot be read .Is a directory"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"contract": NOBODY}, f"contract {NOBODY}: there is no code at this address"),
        ({"contract": "0x1234"}, "contract '0x1234' is no address; expected 0x and 40 hexadecimal digits"),
        ({"chain_id": 5}, "identities.chain_id is 5, and the chain at .* has the number 131277322940537"),
        (
            {"pot": 10**25},
            "account 0x.* has 9+[0-9]* wei on the chain at .*, and this transaction may take 1000.*; send",
        ),
    ],
    ids=["no code", "no address", "another chain", "too little"],
)
def test_a_setting_that_does_not_fit_the_chain(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        run(tmp_path / "run", settings=settings)
    assert not (tmp_path / "run" / "identity" / "members.json").exists()


def test_another_contract_at_the_address(tmp_path):
    make_keys(tmp_path)
    account = read_account(tmp_path / "account.key")
    make_chain(tmp_path / "chain", [account.address])
    here = EmbeddedChain(tmp_path / "chain")
    other = here.send(account, None, "0x6001600c60003960016000f300", 200_000).contract  # its code is one byte, STOP
    with pytest.raises(InputError, match=f"contract {other}: the code at this address .* is not registry.vy's"):
        Registry(here, other)


def test_members_of_another_chain(tmp_path, monkeypatch):
    run_folder = tmp_path / "run"
    monkeypatch.setattr(LinearHospital, "train", pytest.fail)
    with pytest.raises(Exception, match="usable clients"):  # enrolled; nobody trains
        run(run_folder)
    members = read_members(run_folder)
    write_members(run_folder, type(members)(**{**vars(members), "chain_id": 7}))
    with pytest.raises(InputError, match="members.json: this run is on chain 7, and the chain at .* has the number"):
        run(run_folder)


def test_a_node_s_account_without_funds_and_a_node_that_is_not_there(tmp_path, monkeypatch):
    with serving([NOBODY]) as node:
        with pytest.raises(InputError, match=f"account 0x.* has 0 wei on the chain at {node.url}.*; send it some"):
            run(tmp_path / "run", settings={"chain": node.url})
        url = node.url
    monkeypatch.setattr(chain, "WAITS", (0.0,))
    with pytest.raises(ChainUnavailable, match=f"the chain at {url} does not answer .*asked 2 times"):
        run(tmp_path / "run", settings={"chain": url})


@pytest.mark.parametrize(
    "given", [{"chain": "mainnet"}, {"chain_id": 0}, {"pot": -1}, {"chains": "embedded"}, {"pot": "much"}]
)
def test_a_setting_that_cannot_be(given):
    with pytest.raises(InputError, match=f"config.yaml: identities.*{next(iter(given))}"):
        validated(Identities, given, "config.yaml: identities")


def test_commands_say_what_is_wrong(tmp_path):
    for words, sentence in {
        ("audit", str(tmp_path / "none")): "does not exist; expected a run folder or a bundle",
        ("audit", str(tmp_path)): "this run has no identities to audit",
        ("identity", "show", str(tmp_path)): "members.json does not exist",
        ("identity", "revoke", str(tmp_path), "z"): "members.json does not exist",
    }.items():
        done = CliRunner().invoke(app, list(words))
        assert isinstance(done.exception, InputError) and sentence in str(done.exception)


def test_without_the_optional_packages(tmp_path, repository):
    """In a process of its own, where web3 cannot be imported."""
    program = (
        "import sys; sys.modules['web3'] = None\n"
        "from fedmrg_core.commands.command_line import main\n"
        f"sys.argv = ['fedmrg', 'audit', {str(tmp_path)!r}]\n"
        "main()"
    )
    path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "fedmrg: the package web3 is not installed; install the optional group: pip install 'fedmrg[identity]'.\n"
    )


def test_a_run_without_identities_needs_none_of_it(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "web3", None)
    folder = pathlib.Path(tmp_path / "run")
    run_federation(folder, configuration("plain", 0, 1), progress=False)
    assert not (folder / "identity").exists()
