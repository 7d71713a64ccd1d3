"""Filters of the role tls_certificates: what is wrong with its settings."""

import ipaddress
import re
from typing import Any

NAME = re.compile(r"(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?")


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def certificate_problems(settings: dict[str, Any], ca_host_is_known: bool) -> list[str]:
    """Say everything that is wrong, so that one run names it all.

    Args:
        settings: the role's variables by their names without ``tls_certificates_``.
        ca_host_is_known: whether the inventory has the private CA's host.

    Returns:
        a sentence for each problem, without its full stop.
    """
    names, addresses, source = settings["names"], settings["addresses"], settings["source"]
    problems = []
    if not names and not addresses:
        problems.append(
            "tls_certificates_names and tls_certificates_addresses are both empty: name what clients connect to, such "
            "as [gateway.lan] and [192.168.1.12]"
        )
    problems += [
        f"tls_certificates_names: '{name}' is no DNS name; write it like gateway.lan"
        for name in names
        if not NAME.fullmatch(name)
    ]
    problems += [
        f"tls_certificates_addresses: '{address}' is no IP address; names go into tls_certificates_names"
        for address in addresses
        if not _is_address(address)
    ]
    if source == "private_ca":
        problems += _private_problems(settings, ca_host_is_known)
    elif source == "files" and "" in (settings["file_certificate"], settings["file_key"]):
        problems.append(
            "tls_certificates_source is files, so tls_certificates_file_certificate and tls_certificates_file_key must "
            "name files on the host"
        )
    elif source == "acme":
        if not settings["acme_terms_agreed"]:
            problems.append(
                f"tls_certificates_source is acme: read the terms of {settings['acme_directory']} and set "
                "tls_certificates_acme_terms_agreed to true"
            )
        if any("*" in name for name in names):
            problems.append("tls_certificates_names: the challenge http-01 gives no certificate for a wildcard")
    return problems


def _private_problems(settings: dict[str, Any], ca_host_is_known: bool) -> list[str]:
    problems = []
    if not ca_host_is_known:
        problems.append(f"tls_certificates_ca_host: '{settings['ca_host']}' is no host of the inventory")
    valid, renew = int(settings["validity_days"]), int(settings["renew_days"])
    ca_valid, ca_renew = int(settings["ca_validity_days"]), int(settings["ca_renew_days"])
    if not 0 < renew < valid:
        problems.append(
            f"tls_certificates_renew_days is {renew}: it must be more than 0 and less than "
            f"tls_certificates_validity_days ({valid}), or every run would renew"
        )
    if not valid < ca_renew < ca_valid:
        problems.append(
            f"tls_certificates_ca_renew_days is {ca_renew}: it must lie between tls_certificates_validity_days "
            f"({valid}) and tls_certificates_ca_validity_days ({ca_valid})"
        )
    return problems


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name each filter."""
        return {"certificate_problems": certificate_problems}
