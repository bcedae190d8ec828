"""Keys of a participant: one that signs updates (Ed25519), one that owns its account on the chain (secp256k1).

A folder each, `signing.pem` and `account.key` in it, readable by their owner alone. They never leave their machine.
"""

from __future__ import annotations

import os
import pathlib
import re
import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file

SIGNING, ACCOUNT = "signing.pem", "account.key"
_HEXADECIMAL = re.compile(r"(0x)?[0-9a-fA-F]{64}")


def make_keys(folder: pathlib.Path) -> None:
    """Make the keys that a folder lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SIGNING).exists():
        write_signing_key(folder / SIGNING, Ed25519PrivateKey.generate())
    if not (folder / ACCOUNT).exists():
        _write_private(folder / ACCOUNT, f"{secrets.token_hex(32)}\n".encode())


def write_signing_key(path: pathlib.Path, key: Ed25519PrivateKey) -> None:
    """Write a key that signs updates, unencrypted PKCS 8."""
    plain = serialization.NoEncryption()
    _write_private(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))


def read_signing_key(path: pathlib.Path) -> Ed25519PrivateKey:
    """The key that signs updates.

    Raises:
        InputError: the file cannot be read, or holds no Ed25519 key without a password.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: not a private key in PEM without a password ({error}); expected an Ed25519 key."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        raise InputError(f"{path}: a key of type {kind}; expected an Ed25519 key, as updates are signed with one.")
    return key


def read_account(path: pathlib.Path) -> LocalAccount:
    """The account on the chain.

    Raises:
        InputError: the file cannot be read, or does not hold a private key of 32 bytes in hexadecimal.
    """
    text = _read(path).decode("utf-8", errors="replace").strip()
    if not _HEXADECIMAL.fullmatch(text):
        raise InputError(f"{path}: not an account's private key; expected 32 bytes as 64 hexadecimal digits.")
    try:
        return Account.from_key(text)
    except ValueError as error:  # zero, or beyond the curve's order
        raise InputError(f"{path}: these 32 bytes are no private key of an account.") from error


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public key."""
    return key.public_key().public_bytes_raw()


def verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature is of this message, by this key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the key file cannot be read ({error.strerror or error}).") from error


def _write_private(path: pathlib.Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.touch(mode=0o600)
        os.chmod(temporary, 0o600)
        temporary.write_bytes(content)
