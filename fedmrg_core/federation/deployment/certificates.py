"""The federation's certificate authority, the server's certificate and the hospitals' keys.

The server's folder holds a small authority of its own: hospitals trust this one and no other. A hospital proves itself
by an elliptic-curve key, whose public half the server registers. Private keys never leave the folder they are made in.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file

AUTHORITY, AUTHORITY_KEY = "authority.pem", "authority.key"
CERTIFICATE, CERTIFICATE_KEY = "server.pem", "server.key"
NODE_KEY, NODE_PUBLIC_KEY = "node.key", "node.pub"
# A clock may be an hour slow, and somewhat more: a certificate counts from a day before it was made [ours].
EARLIER, VALID = datetime.timedelta(days=1), datetime.timedelta(days=397)
_RENEW = "make both new with fedmrg federation init"
_PEM, _PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def make_authority(folder: pathlib.Path, name: str) -> None:
    """Write an authority's certificate and key, and nothing where they are already."""
    if (folder / AUTHORITY).is_file() and (folder / AUTHORITY_KEY).is_file():
        return
    key = _new_key()
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)  # signs, certificates and lists
    certificate = (
        _builder(_named(f"{name} authority"), _named(f"{name} authority"), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(folder / AUTHORITY_KEY, _private_pem(key))
    _write(folder / AUTHORITY, certificate.public_bytes(_PEM))


def issue_certificate(folder: pathlib.Path, hosts: Sequence[str]) -> None:
    """Write the server's certificate, signed by the folder's authority, and its key.

    Args:
        folder: with the authority.
        hosts: names and addresses under which hospitals reach the server.

    Raises:
        InputError: the authority is unreadable.
    """
    authority, signer = read_certificate(folder / AUTHORITY), _read_key(folder / AUTHORITY_KEY)
    key = _new_key()
    certificate = (
        _builder(_named(hosts[0]), authority.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write_private(folder / CERTIFICATE_KEY, _private_pem(key))
    _write(folder / CERTIFICATE, certificate.public_bytes(_PEM))


def make_node_key(folder: pathlib.Path) -> str:
    """The public half of a hospital's key, in OpenSSH's form; both halves are written where there are none."""
    if not (folder / NODE_KEY).exists():
        private = _new_key().private_bytes(_PEM, serialization.PrivateFormat.OpenSSH, _PLAIN)
        _write_private(folder / NODE_KEY, private)
    public = read_node_key(folder).public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / NODE_PUBLIC_KEY, text + b"\n")
    return text.decode()


def read_node_key(folder: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    """A hospital's key.

    Raises:
        InputError: it is missing, unreadable, or of another type.
    """
    path = folder / NODE_KEY
    again = "make a new one with fedmrg site init, and have the new application.json admitted"
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read ({error.strerror}); restore it, or {again}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: not a readable OpenSSH key without a password; delete it, then {again}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path}: a key of another type; expected an elliptic-curve key (ecdsa): delete it, {again}.")
    return key


def check_public_key(text: str, source: str) -> None:
    """Hold a hospital's public key against the type that the server registers.

    Raises:
        InputError: it is none, or of another type.
    """
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{source}: public_key is no OpenSSH key; make it again with fedmrg site init.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError(f"{source}: public_key is of another type; expected an elliptic-curve key (ecdsa).")


def check_key(folder: pathlib.Path) -> None:
    """Hold the server's key against its certificate.

    Raises:
        InputError: it is unreadable, of another type, or another certificate's.
    """
    key, certificate = _read_key(folder / CERTIFICATE_KEY), read_certificate(folder / CERTIFICATE)
    if key.public_key() != certificate.public_key():
        raise InputError(f"{folder / CERTIFICATE_KEY}: another certificate's key; {_RENEW}.")


def read_certificate(path: pathlib.Path) -> x509.Certificate:
    """A certificate in PEM.

    Raises:
        InputError: it is missing or unreadable.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable certificate; make it with fedmrg federation init.") from error


def check_certificate(path: pathlib.Path, host: str, now: datetime.datetime | None = None) -> None:
    """Hold the server's certificate against the clock and the host that hospitals call.

    Raises:
        InputError: it is unreadable, expired, not valid yet, or for another host.
    """
    certificate, now = read_certificate(path), now or _now()
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renew = "make a new one with fedmrg federation init"
    if now > ends:
        raise InputError(f"{path}: the certificate has expired ({ends:%Y-%m-%d}); {renew}.")
    if now < begins:
        raise InputError(
            f"{path}: the certificate is valid from {begins:%Y-%m-%d %H:%M} UTC, and the clock says "
            f"{now:%Y-%m-%d %H:%M} UTC; set the clock right."
        )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = [str(value) for kind in (x509.DNSName, x509.IPAddress) for value in names.get_values_for_type(kind)]
    if host not in known:
        raise InputError(f"{path}: the certificate is for {', '.join(known)}, not for {host}; {renew}.")


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _read_key(path: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: not a readable key without a password; {_RENEW}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path}: a key of another type; expected an elliptic-curve key: {_RENEW}.")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.TraditionalOpenSSL, _PLAIN)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - EARLIER)
        .not_valid_after(_now() + VALID)
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _write(path: pathlib.Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _write_private(path: pathlib.Path, content: bytes) -> None:
    """Write what nobody else on the machine may read."""
    with atomic_file(path) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        temporary.write_bytes(content)
