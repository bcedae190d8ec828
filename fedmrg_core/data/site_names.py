"""Names of sites and clients: whoever made the data chose them, so they are data, and never a path or a column as such.

A name becomes one part of a path by `path_part`, a list of names a parameter by `read_sites` and `sites_text`.
"""

from __future__ import annotations

import collections
import hashlib
import json
import pathlib
import re
import tempfile
import unicodedata
import urllib.parse
from collections.abc import Iterable, Sequence

import yaml

from fedmrg_core.data.report_words import clean_name
from fedmrg_core.errors import InputError

# What tables and figures call other things than one client's test studies.
RESERVED = (
    "all", "both", "client", "federation", "generic", "home", "mean", "none", "pooled", "specialised", "unseen", "wire",
)  # fmt: skip
# File systems allow 255 bytes; 31 letters of three bytes each are still readable, and endings such as
# "-specialised.csv.12345.partial" have room.
LONGEST_PART = 100
LONGEST_LIST = 160  # bytes of all unseen sites in a run folder's name, beside the data's and the partition's
SHORTEST_CUT = 15  # bytes; fewer would hold little but the digest
_DIGEST = 10  # hexadecimal digits
_CUT = re.compile(rf"([^~]+)~[0-9a-f]{{{_DIGEST}}}")
_SPECIAL = re.compile(r"^[.\- ]|\.(?=partial$)|[. ]$")  # hidden files, options, what is half written; Windows' ends
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # files of these names Windows has already
_PLAIN = re.compile(r"\w[\w .-]*", re.ASCII)
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, halves of characters, line ends


def path_part(name: str, longest: int = LONGEST_PART) -> str:
    """A name as one part of a path: a plain one as it is, any other so that no file system takes it for another.

    Letters and digits of every script, blanks, ``.``, ``-`` and ``_`` stay; the rest is written as in addresses
    (``A/B`` is ``A%2FB``), and so is what means something at a part's beginning or end. A name that is too long then
    is cut, and ends with ``~`` and a digest of the whole. What was made by this function is left as it is.

    Args:
        name: of a site or a client, not empty.
        longest: bytes in UTF-8, at least `SHORTEST_CUT`.
    """
    if _is_cut(name) and len(name.encode()) <= longest:
        return name
    text = _encoded(name)
    return text if len(text.encode()) <= longest else _cut(text, name, longest)


def name_of(part: str) -> str:
    """The name that `path_part` made a part of; of one that was cut the part itself, which `find_sites` understands."""
    return part if _is_cut(part) else urllib.parse.unquote(part)


def shortened(text: str, longest: int) -> str:
    """A text of at most so many bytes: cut and marked with a digest where it is longer."""
    return text if len(text.encode()) <= longest else _cut(text, text, longest)


def with_digest(beginning: str, name: str) -> str:
    """The beginning of a name and a digest of the whole: long names that begin alike are told apart."""
    return f"{beginning}~{_digest(name)}"


def sites_part(sites: Sequence[str]) -> str:
    """Several names as one part of a path, joined by ``+``.

    Raises:
        InputError: there are so many that their beginnings do not fit.
    """
    parts = [path_part(site) for site in sites]
    if len("+".join(parts).encode()) > LONGEST_LIST:
        longest = LONGEST_LIST // len(parts) - 1
        if longest < SHORTEST_CUT:
            raise InputError(
                f"unseen: {len(sites)} names of {len('+'.join(parts).encode())} bytes do not fit into a folder's name; "
                "hold out fewer sites or give them shorter names."
            )
        parts = [path_part(site, longest) for site in sites]
    return "+".join(parts)


def find_sites(wanted: Iterable[str], sites: Iterable[str], parameter: str) -> list[str]:
    """The sites of a data set that names or cut parts of paths mean.

    Raises:
        InputError: the data set has no such site; names the parameter.
    """
    known = sorted(set(sites))
    by_spelling = {clean_name(site): site for site in known}
    by_digest = {_digest(site): site for site in known}
    found = []
    for name in wanted:
        site = name if name in known else by_spelling.get(clean_name(name))
        if site is None and _is_cut(name):
            site = by_digest.get(name.rpartition("~")[2])
        if site is None:
            raise InputError(f"{parameter} names {name!r}; the data set has the sites {', '.join(known)}.")
        found.append(site)
    return found


def read_sites(value: object) -> tuple[str, ...]:
    """Names of sites: a list, the text of a JSON or YAML list, or names joined by commas; empty is none.

    In a list every name is taken as written: ``[A/B, "C, D", NO, 010]`` are four names.

    Raises:
        InputError: it is none of these, or a name is empty or stands twice.
    """
    listed = _listed(value)
    for name in listed:
        if not isinstance(name, str) or not name:
            raise InputError(f"{name!r} in {value!r} is no name; expected names of sites, in quotes if need be.")
    for name, count in collections.Counter(listed).items():
        if count > 1:
            raise InputError(f"{name!r} stands {count} times in {value!r}; give every site once.")
    return tuple(listed)


def sites_text(sites: Sequence[str]) -> str:
    """The text that `read_sites` reads as these names, joined by commas where all are plain, else a JSON list."""
    joined = ",".join(sites)
    plain = all(_PLAIN.fullmatch(site) and site == site.strip() for site in sites)
    return joined if plain and not _is_other(joined) else json.dumps(list(sites), ensure_ascii=False)


def check_site_name(name: str, place: str) -> None:
    """Refuse a name that tables could not tell from their own, or that no line of text can hold.

    Args:
        name: of a site.
        place: where it stands; begins the sentence.

    Raises:
        InputError: it is one of `RESERVED`, or has a control character.
    """
    if name in RESERVED:
        raise InputError(
            f"{place} has the site {name!r}, which tables use themselves ({', '.join(RESERVED)}); give it another name."
        )
    if any(unicodedata.category(char) in _CONTROL for char in name):
        raise InputError(f"{place} has the site {name!r} with a control character or line end; take it out.")


def check_apart(names: Iterable[str], folder: pathlib.Path) -> None:
    """Refuse names that differ in case only where the file system of `folder` (which is there) does not tell cases.

    Raises:
        InputError: names both.
    """
    first: dict[str, str] = {}
    for name in sorted(set(names)):
        other = first.setdefault(path_part(name).casefold(), name)
        if other != name and _ignores_case(folder):
            raise InputError(
                f"sites {other!r} and {name!r} differ in case only, which the file system of {folder} does not tell "
                "apart; rename one, or keep runs on another file system."
            )


def _encoded(name: str) -> str:
    composed = unicodedata.is_normalized("NFC", name)  # of two ways to write one letter, one is kept as it is
    text = "".join(char if _stays(char, composed) else _quoted(char) for char in name)
    text = _SPECIAL.sub(lambda match: _quoted(match[0]), text)
    return _quoted(text[0]) + text[1:] if _DEVICE.fullmatch(text) else text


def _is_cut(name: str) -> bool:
    """Whether it is a part that `path_part` has cut; what another hand wrote so must be as harmless."""
    beginning = match[1].replace("%", "") if (match := _CUT.fullmatch(name)) else ""
    return bool(beginning) and _encoded(beginning) == beginning


def _stays(char: str, composed: bool) -> bool:
    if char.isascii():
        return char.isalnum() or char in "-_. "
    return composed and unicodedata.category(char)[0] in "LMN"


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def _cut(text: str, name: str, longest: int) -> str:
    """The beginning of `text`, whole characters, with the digest of `name`."""
    room = longest - _DIGEST - 1
    beginning = text.encode()[:room].decode(errors="ignore")
    beginning = re.sub(r"%[0-9A-F]?$", "", beginning).replace("~", "-").rstrip(". ")
    return with_digest(beginning, name)


def _listed(value: object) -> list:
    if not isinstance(value, str):
        return list(value) if isinstance(value, list | tuple) else [value]
    text = value.strip()
    if not text.startswith("["):
        return [part.strip() for part in text.split(",")] if text else []
    try:
        listed = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - makes nothing but lists and texts
    except yaml.YAMLError as error:
        raise InputError(f'{text!r} is no list of names; expected e.g. ["A/B", "C, D"].') from error
    return listed if isinstance(listed, list) else [listed]


def _is_other(text: str) -> bool:
    """Whether a workflow's command line takes the text for a number or a truth value."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _ignores_case(folder: pathlib.Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".case-") as probe:
        path = pathlib.Path(probe.name)
        return path.with_name(path.name.upper()).exists()
