"""Names of sites: whatever they are, they make parts of paths, lists and tables that can be told apart."""

from __future__ import annotations

import pathlib
import re
import subprocess
import unicodedata
import urllib.parse

import pytest
from data_fixtures import make_folder, study_rows
from federation_fake import FakeTask, fake_configuration
from run_folders import write_run

from fedmrg_core.commands.html_report import write_html_report
from fedmrg_core.data import site_names
from fedmrg_core.data.folder import load_folder
from fedmrg_core.data.partition import partition_clients
from fedmrg_core.data.site_names import (
    LONGEST_PART,
    RESERVED,
    find_sites,
    name_of,
    path_part,
    read_sites,
    sites_part,
    sites_text,
)
from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.runs.experiments import Experiment, RunSettings
from fedmrg_core.runs.metric_table import METRIC_COLUMNS
from figures import common

PLAIN = ("E", "centre-a", "client-01", "North", "St. Mary", "pooled")
ODD = (
    "ก" * 31, "😀", "A/B", "C, D", "..", ".", "CON", "con.txt", " lead", "trail ", "dot.", "a=b", "-x", "%41", "A%2FB",
    "O'Brien", '"q"', "north", "NORTH", "x" * 300, "x" * 299 + "y", "ก" * 300, "e\u0301", "\u00e9", "a.partial",
    "a+b", "~home", "[a]", "NO", "010", "1e5", "true", "../x~0123456789", "a\\b", "$x$", "{x}", "#1", "a: b", "NA",
)  # fmt: skip


def test_plain_names_stay_as_they_are() -> None:
    assert [path_part(name) for name in PLAIN] == list(PLAIN)
    assert sites_part(["A", "E"]) == "A+E"


def test_every_name_is_a_part_of_a_path_of_its_own(tmp_path: pathlib.Path) -> None:
    names = [*PLAIN, *ODD]
    parts = [path_part(name) for name in names]
    assert len({unicodedata.normalize("NFC", part) for part in parts}) == len(names)
    for name, part in zip(names, parts, strict=True):
        assert len(part.encode()) <= LONGEST_PART and not set(part) & set("/\\:*?\"<>|+,=~'\n") - {"~"}, part
        assert part.startswith(part.lstrip(".- ")) and part == part.rstrip(". "), part
        assert path_part(name_of(part)) == part and (name_of(part) == name or "~" in part)
        (tmp_path / f".{part}-specialised.csv.123456.partial").write_text("")
    assert len(list(tmp_path.iterdir())) == len(names)
    assert path_part("ก" * 31) == "ก" * 31 and path_part("A/B") == "A%2FB"  # readable
    assert path_part("CON") != "CON" and not path_part("a.partial").endswith(".partial")


def test_a_cut_part_finds_its_site_and_nothing_else_is_taken_for_one() -> None:
    long = "x" * 300
    assert find_sites([path_part(long), "A/B"], [*ODD], "unseen") == [long, "A/B"]
    assert find_sites([path_part(long, 20)], [*ODD], "unseen") == [long]
    with pytest.raises(InputError, match="unseen names 'y~0123456789'; the data set has the sites a, b"):
        find_sites(["y~0123456789"], ["b", "a"], "unseen")
    assert "/" not in path_part("../../x~0123456789")


@pytest.mark.parametrize("sites", [("E",), ("A", "E"), ("A/B", "C, D"), *((name,) for name in ODD), ODD[:9]])
def test_a_run_folder_tells_its_unseen_sites(sites: tuple[str, ...]) -> None:
    run = RunSettings(data="folder", unseen=sites, partition="style", clients=12)
    again = RunSettings.from_name(run.name)
    assert again.name == run.name and run.name.count("/") == 3
    assert run.unseen_sites == sites == read_sites(run.unseen)
    assert find_sites(again.unseen_sites, sites, "unseen") == list(sites)
    assert max(len(part.encode()) for part in run.name.split("/")) < 240


def test_so_many_long_names_that_no_folder_could_hold_them_are_refused() -> None:
    with pytest.raises(InputError, match="30 names of .* bytes do not fit into a folder's name; hold out fewer"):
        RunSettings(unseen=[f"{number}-{'x' * 90}" for number in range(30)])
    with pytest.raises(InputError, match="bytes, too many for a folder's name; put the variant's numbers"):
        RunSettings(variant=",".join(f"training.learning_rate={number}" for number in range(20)))
    with pytest.raises(InputError, match="a slash stands in"):
        RunSettings(variant="training.learning_rate=1/2")


@pytest.mark.parametrize(
    ("written", "sites"),
    [
        ("", ()),
        ("A, E", ("A", "E")),
        ('["A/B", "C, D"]', ("A/B", "C, D")),
        ("[A/B, 'C, D', NO, 010, 1e5]", ("A/B", "C, D", "NO", "010", "1e5")),
        (["A", "B"], ("A", "B")),
    ],
)
def test_lists_of_sites_are_read_as_written(written: object, sites: tuple[str, ...]) -> None:
    assert read_sites(written) == sites == read_sites(sites_text(sites))
    assert RunSettings(unseen=written).unseen == sites_text(sites)


def test_names_that_a_command_line_would_turn_into_something_else_are_written_as_a_list() -> None:
    assert sites_text(["A", "E"]) == "A,E"
    assert [sites_text([name]) for name in ("NO", "010", "true", "a: b")] == ["NO", '["010"]', '["true"]', '["a: b"]']
    block = Experiment(unseen=["E", ["A/B", "C, D"]], data=["folder"])
    assert [run.unseen_sites for run in block.runs("smoke")] == [("E",), ("A/B", "C, D")]


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("A,,B", "run: unseen: '' in 'A,,B' is no name"),
        ("[A", "run: unseen: .* is no list of names; expected e.g."),
        ("A,A", "run: unseen: 'A' stands 2 times in 'A,A'; give every site once"),
        ([1], "run: unseen: 1 in .* is no name"),
        (5, "run: unseen: 5 in 5 is no name"),
    ],
)
def test_what_is_no_list_of_sites_is_one_sentence(written: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        RunSettings(unseen=written)
    assert "\n" not in str(caught.value)


def test_names_that_tables_use_themselves_are_refused_where_they_stand(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path, site="home")
    sentence = r"row 1 has the site 'home', which tables use themselves \(all, both, .*unseen, wire\); give it another"
    with pytest.raises(InputError, match=rf"studies\.csv: {sentence}"):
        load_folder(tmp_path)
    splits = ("train", "validation", "test")
    for name in RESERVED:
        rows = [(f"{site}-{split}", site, split) for site in (name, "a", "b") for split in splits]
        with pytest.raises(InputError, match=f"has the site '{name}'"):
            partition_clients(study_rows(rows), unseen_sites=["b"])
    with pytest.raises(InputError, match="with a control character or line end; take it out"):
        site_names.check_site_name("a\tb", "row 3")
    site_names.check_site_name("👩‍⚕️ Home", "row 3")


def test_an_unseen_site_is_not_called_as_a_client_is() -> None:
    rows = [
        (f"p{number}-{split}", site, split)
        for number, site in enumerate(["a", "b", "client-1"])
        for split in ("train", "validation", "test")
    ]
    with pytest.raises(InputError, match="'client-1' is called as a client of partition 'random'; rename the site"):
        partition_clients(study_rows(rows), "random", 2, unseen_sites=["client-1"])


def test_names_that_differ_in_case_only_need_a_file_system_that_tells_them_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(site_names, "_ignores_case", lambda folder: True)
    site_names.check_apart(["north", "south", "north"], tmp_path)
    with pytest.raises(InputError, match="sites 'North' and 'north' differ in case only, .* rename one"):
        site_names.check_apart(["north", "North"], tmp_path)
    monkeypatch.setattr(site_names, "_ignores_case", lambda folder: False)
    site_names.check_apart(["north", "North"], tmp_path)


class OddTask(FakeTask):
    """Hospitals with names that whoever made the data has chosen."""

    names = tuple(sorted(("ก" * 31, "😀", "A/B", "..", "north", "North")))

    def hospital(self, client, folders):
        hospital = super().hospital(client, folders)
        hospital.finish = lambda *_: None
        return hospital


def test_hospitals_of_any_name_train_and_keep_their_state(tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=2).model_copy(update={"task": "odd-names"})
    run_federation(tmp_path / "run", configuration, progress=False)
    rounds = read_table(tmp_path / "run" / "rounds.csv", ("round", "client"), "run again")
    assert set(rounds["client"]) == set(OddTask.names) and set(rounds["status"]) == {"ok"}
    folders = sorted(path.name for path in (tmp_path / "run" / "hospitals").iterdir())
    assert folders == sorted(map(path_part, OddTask.names))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_table_keeps_names_as_they_are(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.csv"
    names = ["NA", "007", "1e5", "True", "null", 'C, "D"']
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names]
    path.write_text("\n".join([",".join(METRIC_COLUMNS), *(f"{name},none,model,cider,,,,3" for name in quoted)]) + "\n")
    table = read_table(path, METRIC_COLUMNS, "score again")
    assert list(table["scope"]) == names
    assert table["value"].isna().all() and list(table["studies"]) == [3] * len(names)


def test_a_name_in_a_figure_is_text(tmp_path: pathlib.Path) -> None:
    figure, (axis,) = common.new_figure(1, 1, 2, 2)
    names = ["$\\frac$ $", "_hidden", "x" * 300, "x" * 299 + "y"]
    shown = list(map(common.plain, names))
    axis.set_xticks(range(4), shown)
    axis.plot([0, 1], label=shown[1])
    axis.legend()
    figure.draw_without_rendering()
    assert len(axis.get_legend().get_texts()) == 1
    assert len(set(shown)) == 4 and max(map(len, shown)) <= common.LONGEST_LABEL + 3
    runs = [tmp_path / "data" / ("m" * 220) / f"seed-{number}" for number in (0, 1)]
    assert len({common.figure_name("convergence", run, runs) for run in runs}) == 2
    assert all(len(common.figure_name("convergence", run, runs).encode()) <= common.LONGEST_NAME for run in runs)


def test_a_page_links_to_the_folder_that_is_there(tmp_path: pathlib.Path) -> None:
    run = write_run(tmp_path, studies=8, data="folder", unseen=["A/B"])
    (run / "figures").mkdir()
    (run / "figures" / "convergence.png").write_bytes(b"")
    write_html_report(run, [], tmp_path / "report" / "index.html")
    page = (tmp_path / "report" / "index.html").read_text()
    links = re.findall(r'href="([^"]*)"', page)
    assert links and all((tmp_path / "report" / urllib.parse.unquote(link)).is_file() for link in links)


def made(repository: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would run, or shows, without making the environment first."""
    command = ["make", "--no-print-directory", "-o", "environment", "-o", ".venv/installed", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


@pytest.mark.parametrize("value", ["O'Brien", '["A/B", "C, D"]', "a $x b", 'a"b', "it's $(HOME) `x`"])
def test_make_hands_names_on_as_they_are_written(repository: pathlib.Path, value: str) -> None:
    names = [f"UNSEEN={value}", f"DATA_ROOT={value}"]
    told = made(repository, "figures", "SNAKEMAKE=printf '%s\\n'", *names)  # in place of the workflow
    assert {f"unseen={value}", f"data_root={value}"} < set(told.stdout.splitlines()), told.stderr
    quoted = value.replace("'", "'\\''")
    assert f"data_root='{quoted}'" in made(repository, "-n", "benchmark", *names).stdout
    assert f"  UNSEEN={value} " in made(repository, "help", *names).stdout


def test_a_site_is_found_however_its_letters_were_typed():
    composed, decomposed = "M\u00fcnchen", "Mu\u0308nchen"
    assert find_sites([decomposed, " Kiel "], [composed, "Kiel"], "unseen") == [composed, "Kiel"]
    assert find_sites([decomposed], [composed, decomposed], "unseen") == [decomposed]
