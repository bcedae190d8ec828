"""Before a hospital's node is started: the server is the one of its invitation, and their clocks agree."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import pathlib
import ssl

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import certificates

# Flower's SuperLink refuses what a hospital has signed in its future, or more than five minutes ago.
AHEAD, BEHIND = datetime.timedelta(seconds=5), datetime.timedelta(minutes=5)
SECONDS = 10.0


def check_server(host: str, port: int, authority: pathlib.Path, now: datetime.datetime | None = None) -> bool:
    """Call the server as Flower will.

    Args:
        host: of the server.
        port: of the server.
        authority: whose certificates this hospital trusts.
        now: what this machine's clock says.

    Returns:
        Whether it answers.

    Raises:
        InputError: its certificate is not the authority's, is for another host, or has expired; or its clock and this
            one differ.
    """
    certificates.read_certificate(authority)
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        connection.request("GET", "/health")
        date = connection.getresponse().getheader("date")
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            f"{host}:{port}: its certificate does not pass ({error.verify_message.rstrip('.')}); check the server with "
            f"whoever runs it, this machine's clock, and that {authority} is of its invitation."
        ) from error
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if date is not None:
        _check_clock(email.utils.parsedate_to_datetime(date), now or datetime.datetime.now(datetime.UTC), host)
    return True


def _check_clock(there: datetime.datetime, here: datetime.datetime, host: str) -> None:
    """The server tells whole seconds, and its answer takes a moment: one more is allowed."""
    ahead = here - there
    if -BEHIND < ahead < AHEAD + datetime.timedelta(seconds=1):
        return
    seconds = abs(round(ahead.total_seconds()))
    which = "ahead of" if ahead > datetime.timedelta() else "behind"
    raise InputError(
        f"this machine's clock is {seconds} s {which} that of {host}, which refuses what is signed at such a time; set "
        "both right."
    )
