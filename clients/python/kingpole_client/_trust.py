"""What TLS trusts, for both clients and every transport. Opens no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpole_client._address import Address
from kingpole_client.errors import InvalidArgument

if TYPE_CHECKING:
    import ssl


def tls_context(
    address: Address, given: ssl.SSLContext | None, root_certificates: bytes | None
) -> ssl.SSLContext | None:
    """Choose what HTTPS trusts: the caller's own context, else the PEM certificates, else (None) the system.

    gRPC takes the certificates as they are; they are read here all the same, because gRPC says of ones
    that it cannot read only that the connection failed.

    Raises:
        InvalidArgument: The certificates cannot be read, or the address has no use for what was given.
    """
    if given is not None and address.scheme != "https":
        instead = ": pass root_certificates= instead" if address.scheme == "grpcs" else ""
        raise InvalidArgument(f"tls= is for https, the address is {address}{instead}")
    if root_certificates is None:
        return given
    if not address.secure:
        raise InvalidArgument(f"root_certificates= is for https and grpcs, the address is {address}")
    if given is not None:
        raise InvalidArgument(
            "tls= and root_certificates= are both given: put the certificates in the context"
        )
    import ssl  # only who speaks TLS pays for it

    # What is not ASCII can only be in the comments between certificates.
    pem = root_certificates.decode("ascii", "ignore")
    if not pem.strip():
        raise InvalidArgument("root_certificates= is empty; leave it out to trust what the system trusts")
    try:
        return ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidArgument(f"root_certificates= holds no certificates in PEM: {error}") from None
