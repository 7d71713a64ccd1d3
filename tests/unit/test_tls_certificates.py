"""Settings of the certificates that can't work are named before anything is changed."""

from typing import Any

import pytest
from tls_certificates import certificate_problems

GOOD: dict[str, Any] = {
    "names": ["gateway.lan", "*.lan"],
    "addresses": ["10.0.0.2", "fd00::2"],
    "source": "private_ca",
    "ca_host": "",
    "validity_days": 365,
    "renew_days": 30,
    "ca_validity_days": 3650,
    "ca_renew_days": 730,
    "file_certificate": "",
    "file_key": "",
    "acme_terms_agreed": False,
    "acme_directory": "https://acme.example/directory",
}


def test_good_settings_have_no_problem() -> None:
    assert certificate_problems(GOOD, True) == []
    files = {"source": "files", "file_certificate": "/a.crt", "file_key": "/a.key"}
    assert certificate_problems({**GOOD, **files}, True) == []
    assert certificate_problems({**GOOD, "source": "acme", "acme_terms_agreed": True, "names": ["a.lan"]}, True) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"names": [], "addresses": []}, "are both empty"),
        ({"names": ["not a name"]}, "'not a name' is no DNS name"),
        ({"addresses": ["gateway.lan"]}, "'gateway.lan' is no IP address"),
        ({"addresses": ["10.0.0.256"]}, "'10.0.0.256' is no IP address"),
        ({"renew_days": 400}, "tls_certificates_renew_days is 400"),
        ({"renew_days": 0}, "tls_certificates_renew_days is 0"),
        ({"ca_renew_days": 100}, "tls_certificates_ca_renew_days is 100"),
        ({"source": "files", "file_key": "/a.key"}, "must name files on the host"),
        ({"source": "acme"}, "read the terms of https://acme.example/directory"),
        ({"source": "acme", "acme_terms_agreed": True}, "no certificate for a wildcard"),
    ],
)
def test_each_mistake_is_named(wrong: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in certificate_problems({**GOOD, **wrong}, True))


def test_the_ca_s_host_must_be_known() -> None:
    assert "'nowhere' is no host" in certificate_problems({**GOOD, "ca_host": "nowhere"}, False)[0]
