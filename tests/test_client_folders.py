"""Dealing writes a folder a client; what a hospital brings is held against the run before anything is trained."""

from __future__ import annotations

import json
import logging
import re
import shutil

import pytest
from federation_fake import FakeHospital, FakeTask, fake_configuration
from small_model import PROFILE
from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app
from fedmrg_core.data.client_folders import open_client_folder
from fedmrg_core.data.dealing import deal, deal_whole, open_dealt
from fedmrg_core.data.prepared import Prepared, prepare
from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.federation.roster import Client, Roster, read_roster, roster_of, write_roster
from fedmrg_core.federation.rounds import TooFewClients
from fedmrg_core.federation.run import run_federation

SITES = ("centre-a", "centre-b", "centre-c", "centre-d", "centre-e")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare("phantom", None, tmp_path_factory.mktemp("data") / "p", 32, seed=0, train=4, validation=2, test=2)


@pytest.mark.parametrize(("partition", "clients"), [("site", None), ("random", 3), ("style", 2), ("dirichlet-1", 2)])
def test_every_client_has_the_studies_that_it_was_dealt(prepared, partition, clients, tmp_path) -> None:
    dealt = deal(prepared, tmp_path / "dealt", partition, clients, seed=0)
    expected = prepared.deal(partition, clients, seed=0)
    assert list(dealt.clients) == list(expected.clients) and list(dealt.unseen) == list(expected.unseen)
    for name, studies in expected.clients.items():
        for split in ("train", "validation", "test"):
            there = dealt.clients[name].split(split)
            assert there["study_id"] == getattr(studies, split)["study_id"]
            assert there[0]["image"] == getattr(studies, split)[0]["image"]
        assert dealt.clients[name].studies["train"] == len(studies.train)
    for site, studies in expected.unseen.items():
        assert dealt.unseen[site].split("test")["study_id"] == studies["study_id"]
        assert dealt.unseen[site].split("train")["study_id"] == expected.adaptation[site]["study_id"]


def test_what_is_dealt_is_taken_again_and_made_anew_when_it_was_dealt_otherwise(prepared, tmp_path) -> None:
    first = deal(prepared, tmp_path / "dealt", "random", 2, seed=0)
    mark = tmp_path / "dealt" / "clients" / "client-1" / "mark"
    mark.touch()
    deal(prepared, tmp_path / "dealt", "random", 2, seed=0)
    assert mark.exists()
    second = deal(prepared, tmp_path / "dealt", "random", 2, seed=1)
    assert not mark.exists()
    names = [[folder.fingerprint for folder in dealt.clients.values()] for dealt in (first, second)]
    assert names[0] != names[1] and len(set(names[0])) == 2
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["dealt"]


def test_a_dealing_that_fails_leaves_what_was_there(prepared, tmp_path) -> None:
    deal(prepared, tmp_path / "dealt", "random", 2, seed=0)
    with pytest.raises(InputError, match="lower clients"):
        deal(prepared, tmp_path / "dealt", "random", 4000, seed=0)
    assert len(open_dealt(tmp_path / "dealt").clients) == 2


def test_something_else_is_not_overwritten(prepared, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="something else than dealt studies"):
        deal(prepared, tmp_path / "mine", "site", None, seed=0)
    with pytest.raises(InputError, match="is not empty"):
        deal_whole(prepared, tmp_path / "mine", "north")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "clue"),
    [
        ({"data": "iu_xray"}, "its studies are of 'iu_xray' and the run is of 'phantom'"),
        ({"image_size": 64}, "images are 64 pixels wide.*image_size 32"),
        ({"studies": {"train": 0, "validation": 2, "test": 2}}, "client 'centre-a' has no train study"),
        ({"name": None}, "not a client folder|no train"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(prepared, tmp_path, change, clue) -> None:
    folder = deal(prepared, tmp_path / "dealt", "site", None, seed=0).clients["centre-a"].path
    content = json.loads((folder / "client.json").read_text())
    content |= change
    if content["name"] is None:
        content.pop("name")
    (folder / "client.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=clue) as error:
        open_client_folder(folder).check("phantom", PROFILE.image_size)
    assert str(folder) in str(error.value)


def test_two_folders_of_one_name_are_refused(prepared, tmp_path) -> None:
    deal(prepared, tmp_path / "dealt", "site", None, seed=0)
    clients = tmp_path / "dealt" / "clients"
    shutil.copytree(clients / "centre-a", clients / "centre-z")
    with pytest.raises(InputError, match="centre-z and .*centre-a both name client 'centre-a'"):
        open_dealt(tmp_path / "dealt")
    with pytest.raises(InputError, match="client 'centre-a' stands twice"):
        roster_of([clients / "centre-a" / "client.json", clients / "centre-z" / "client.json"])


def test_hospitals_and_server_prepare_a_real_federation(prepared, tmp_path) -> None:
    stored = tmp_path / "prepared"
    prepare("phantom", None, stored, 32, seed=0, train=4, validation=2, test=2)
    for name in ("north", "A/B"):
        made = CliRunner().invoke(
            app, ["federation", "client-folder", str(stored), str(tmp_path / path_part(name)), "--name", name]
        )
        assert made.exit_code == 0 and f"client {name!r}" in made.output
    files = [str(tmp_path / path_part(name) / "client.json") for name in ("north", "A/B")]
    written = CliRunner().invoke(app, ["federation", "clients", str(tmp_path / "run"), *files])
    assert written.exit_code == 0 and "A/B, north" in written.output
    roster = read_roster(tmp_path / "run")
    assert roster.names == ("A/B", "north") and len(roster.fingerprints["data"]) == 64
    assert "study" not in (tmp_path / "run" / "clients.json").read_text()


@pytest.mark.parametrize(
    ("content", "clue"),
    [("{", "not a readable JSON"), ('{"clients": [{"nom": "a"}]}', "not a list of clients"), ("{}", "not a list of")],
)
def test_a_damaged_list_of_clients_is_named(tmp_path, content, clue) -> None:
    (tmp_path / "clients.json").write_text(content)
    with pytest.raises(InputError, match=clue):
        read_roster(tmp_path)


def test_a_list_of_clients_comes_back(tmp_path) -> None:
    roster = Roster((Client("b", 3, "x"), Client("a", 2, "y", ("../a",))), {"data": "d", "data_version": "5"})
    write_roster(tmp_path, roster)
    assert read_roster(tmp_path) == roster and roster.names == ("a", "b")
    with pytest.raises(InputError, match="clients.json does not exist"):
        read_roster(tmp_path / "elsewhere")


class ImpostorTask(FakeTask):
    """The third hospital says that it is somebody else, by its name or by its studies."""

    says = Client("d", 8, "studies of c")

    def hospital(self, client, folders):
        return FakeHospital(self, self.says if client.name == "c" else client)


@pytest.mark.parametrize(
    ("says", "clue"),
    [
        (Client("d", 8, "studies of c"), "client 'd' is not in clients.json .a, b, c."),
        (Client("a", 3, "studies of a"), "client 'a' takes part already on another node"),
        (Client("c", 8, "other studies"), "client 'c' has other studies than clients.json says"),
    ],
)
def test_who_is_not_expected_takes_no_part(tmp_path, monkeypatch, caplog, says, clue) -> None:
    monkeypatch.setattr("fedmrg_core.federation.task.make_task", lambda name: ImpostorTask)
    monkeypatch.setattr(ImpostorTask, "says", says)
    with caplog.at_level(logging.WARNING):
        run_federation(tmp_path, fake_configuration(rounds=1), progress=False)
    assert any(re.search(clue, record.getMessage()) for record in caplog.records)
    assert "c,left_out" in (tmp_path / "rounds.csv").read_text()


def test_a_hospital_that_cannot_save_its_model_leaves_the_run_unfinished(tmp_path, monkeypatch) -> None:
    from fedmrg_core.federation.finish import Unfinished

    monkeypatch.setenv("FAKE_FAILURES", "b:unfinished:0")
    with pytest.raises(Unfinished, match="b .error: OSError.*did not save its part of the model"):
        run_federation(tmp_path, fake_configuration(), progress=False)
    assert not (tmp_path / "manifest.json").exists() and (tmp_path / "model" / "a.safetensors").exists()
    monkeypatch.delenv("FAKE_FAILURES")
    trained = []
    monkeypatch.setattr(FakeHospital, "train", lambda *_: trained.append(1))
    run_federation(tmp_path, fake_configuration(), progress=False)
    assert (tmp_path / "manifest.json").exists() and not trained


def test_hospitals_that_test_themselves_answer_with_numbers(tmp_path) -> None:
    run_federation(tmp_path, fake_configuration(rounds=1), progress=False, test=True)
    assert (tmp_path / "hospital_tests.csv").read_text().splitlines()[:2] == [
        "client,metric,value,studies",
        "a,test_loss,1.0,4",
    ]


def test_the_last_message_is_small_where_the_model_is_there(tmp_path) -> None:
    """The hospitals have kept the model of the best round; they are told its digest."""
    run_federation(tmp_path, fake_configuration(), progress=False)
    rows = (tmp_path / "finish.csv").read_text()
    assert "arrays" not in rows and "encoder" not in rows and "message" in rows


def test_too_few_hospitals_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fedmrg_core.federation.task.make_task", lambda name: ImpostorTask)
    with pytest.raises(TooFewClients, match="c: "):
        run_federation(tmp_path, fake_configuration(rounds=1, min_clients=3), progress=False)
