"""The cluster's own authority, joining with a token, service account tokens, and what the anonymous may see."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from korch.api.errors import BadRequest, Conflict, Invalid, NotFound, Unauthorized
from korch.apiserver.authn import reviews
from korch.apiserver.authn.authenticator import ANONYMOUS, BOOTSTRAPPER, ClusterAuthenticator, user_of_certificate
from korch.apiserver.authn.bearer import BearerTokens, ServiceAccountSource
from korch.apiserver.authn.service_account_tokens import DEFAULT_ISSUER, Bound, ServiceAccountTokens
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.join import JoinRequest, issue_for
from korch.client.join import parse_token
from korch.runtime.rng import Rng


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Objects:
    """The service account default/robot and a pod, as the store would show them."""

    def __init__(self) -> None:
        self.uids = {("serviceaccounts", "default", "robot"): "uid-1", ("pods", "default", "p"): "uid-2"}

    def __call__(self, plural: str, namespace: str, name: str) -> str:
        return self.uids.get((plural, namespace, name), "")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path, clock)


@pytest.fixture
def tokens(authority: CertificateAuthority, clock: Clock, objects: Objects) -> ServiceAccountTokens:
    key = authority.signing_key("service-account")
    return ServiceAccountTokens(key, issuer=DEFAULT_ISSUER, audiences=[DEFAULT_ISSUER], clock=clock, lookup=objects)


def signing_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_a_certificate_is_kept_until_it_nears_its_end_or_must_name_other_hosts(authority: CertificateAuthority, clock: Clock) -> None:
    first = authority.issue("server", "kube-apiserver", hosts=["10.96.0.1", "kubernetes"], is_server=True)
    assert authority.issue("server", "kube-apiserver", hosts=["kubernetes", "10.96.0.1"], is_server=True) == first
    second = authority.issue("server", "kube-apiserver", hosts=["10.96.0.2"], is_server=True)
    assert second != first
    clock.time += 320 * 86400
    assert authority.issue("server", "kube-apiserver", hosts=["10.96.0.2"], is_server=True) != second


def test_an_authority_that_is_opened_again_is_the_same_and_its_key_is_private(authority: CertificateAuthority, clock: Clock) -> None:
    assert CertificateAuthority.open(authority.directory, clock).pin == authority.pin
    assert (authority.directory / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_certificate_speaks_for_its_common_name_and_organizations(authority: CertificateAuthority) -> None:
    admin = x509.load_pem_x509_certificate(authority.issue("admin", "kubernetes-admin", organizations=["system:masters"]).certificate)
    user = user_of_certificate(base64.b64encode(admin.public_bytes(serialization.Encoding.DER)).decode())
    assert (user.name, tuple(user.groups)) == ("kubernetes-admin", ("system:masters", "system:authenticated"))


def test_a_joining_node_gets_names_that_the_server_chooses(authority: CertificateAuthority) -> None:
    answer = issue_for(authority, JoinRequest("node", "worker-1", signing_request(), signing_request(), ["10.0.0.7"]))
    client = x509.load_pem_x509_certificate(answer["clientCertificate"].encode())
    serving = x509.load_pem_x509_certificate(answer["servingCertificate"].encode())
    assert client.subject.rfc4514_string() == "CN=system:node:worker-1,O=system:nodes"
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in names] == ["worker-1", "10.0.0.7"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "king"}, "unknown role"),
        ({"name": "Not A Name"}, "DNS-1123"),
        ({"ips": ["here"]}, "'here' does not appear to be an IPv4 or IPv6 address"),
        ({"client_request": "nothing"}, "join:"),
    ],
)
def test_a_join_that_makes_no_sense_is_refused(authority: CertificateAuthority, change: dict, words: str) -> None:
    good = {"role": "node", "name": "a", "client_request": signing_request(), "serving_request": signing_request(), "ips": []}
    with pytest.raises(BadRequest, match=words):
        issue_for(authority, JoinRequest(**good | change))


@pytest.mark.parametrize("text", ["", "korch1.short.secret", "other." + "0" * 64 + ".x", "korch1." + "0" * 64 + "."])
def test_what_is_no_join_token_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="not a join token"):
        parse_token(text)


def bearer(tokens: ServiceAccountTokens) -> BearerTokens:
    return BearerTokens([ServiceAccountSource(tokens)], audiences=tokens.audiences)


def test_credentials_are_told_apart(tokens: ServiceAccountTokens) -> None:
    authenticator = ClusterAuthenticator(bearer(tokens), "korch1.pin.secret")
    token = tokens.issue("default", "robot", "uid-1", audiences=[], expiration_s=3600, bound=None, token_id="t").token
    assert authenticator.authenticate({}) == ANONYMOUS
    assert authenticator.authenticate({"authorization": "Bearer korch1.pin.secret"}) == BOOTSTRAPPER
    assert authenticator.authenticate({"authorization": f"Bearer {token}"}).name == "system:serviceaccount:default:robot"
    for wrong in ("Bearer nonsense", "Basic YTpi", f"Bearer {token[:-8]}AAAAAAAA"):
        with pytest.raises(Unauthorized):
            authenticator.authenticate({"authorization": wrong})


def test_a_token_ends_with_its_time_its_account_or_its_pod(tokens: ServiceAccountTokens, objects: Objects, clock: Clock) -> None:
    def issued() -> str:
        bound = Bound("Pod", "p", "uid-2")
        return tokens.issue("default", "robot", "uid-1", audiences=[], expiration_s=3600, bound=bound, token_id="t").token

    token = issued()
    assert tokens.authenticate(token) is not None
    objects.uids["pods", "default", "p"] = "another"
    assert tokens.authenticate(token) is None
    objects.uids["pods", "default", "p"] = "uid-2"
    clock.time += 3601
    assert tokens.authenticate(token) is None
    token = issued()
    del objects.uids["serviceaccounts", "default", "robot"]
    assert tokens.authenticate(token) is None


async def test_a_token_for_another_audience_is_not_ours(tokens: ServiceAccountTokens) -> None:
    token = tokens.issue("default", "robot", "uid-1", audiences=["vault"], expiration_s=3600, bound=None, token_id="t").token
    assert tokens.authenticate(token) is None
    status = (await reviews.review_token({"spec": {"token": token, "audiences": ["vault", "other"]}}, bearer(tokens)))["status"]
    assert status["authenticated"] is True
    assert status["audiences"] == ["vault"]


@pytest.mark.parametrize(
    ("spec", "name", "error"),
    [
        ({"expirationSeconds": 10}, "robot", Invalid),
        ({}, "absent", NotFound),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "absent"}}, "robot", NotFound),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}}, "robot", Conflict),
        ({"boundObjectRef": {"kind": "Service", "apiVersion": "v1", "name": "p"}}, "robot", Invalid),
    ],
)
def test_a_token_request_that_cannot_be_met_is_refused(
    tokens: ServiceAccountTokens, objects: Objects, spec: dict, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        reviews.request_token({"spec": spec}, "default", name, tokens=tokens, lookup=objects, node_of=lambda *_: "", rng=Rng(1))


@pytest.mark.parametrize("node_is_there", [True, False])
def test_the_token_of_a_pod_says_on_which_node_it_runs(tokens: ServiceAccountTokens, objects: Objects, node_is_there: bool) -> None:
    objects.uids["nodes", "", "n1"] = "uid-3"
    spec = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}
    answer = reviews.request_token({"spec": spec}, "default", "robot", tokens=tokens, lookup=objects, node_of=lambda *_: "n1", rng=Rng(1))
    if not node_is_there:
        del objects.uids["nodes", "", "n1"]
    user = tokens.authenticate(answer["status"]["token"])
    assert user is not None
    assert {key.partition("/")[2]: values for key, values in user.extra.items() if "JTI" not in values[0]} == {
        "pod-name": ("p",),
        "pod-uid": ("uid-2",),
        "node-name": ("n1",),
        "node-uid": ("uid-3",),
    }
