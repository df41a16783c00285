"""The cluster's own certificate authority: makes it once, signs what components need, renews what is about to end.

Files under `<data>/pki`: ca.crt/ca.key (10 years), apiserver.crt/.key (serving), admin.crt/.key (group system:masters),
kubelet-client.crt/.key (the API server towards the agents), service-account.key/.pub (signs tokens). Keys are ECDSA P-256
and readable by their owner only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from korch.runtime.clock import Clock

CA_DAYS = 3650
LEAF_DAYS = 365
# A leaf certificate is made anew when less than this is left of it.
RENEW_BEFORE_DAYS = 60
# Certificates start a little in the past, for machines whose clocks differ.
_BACKDATE = timedelta(minutes=5)
_PURPOSES = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class CertificateAuthority:
    """Signs certificates of one cluster. Construct with `open`."""

    def __init__(self, directory: Path, clock: Clock, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.directory = directory
        self._clock = clock
        self._certificate = certificate
        self._key = key

    @staticmethod
    def open(directory: Path, clock: Clock) -> CertificateAuthority:
        """Return the authority kept in `directory`, made if it is not there. Blocks on the disk; raises OSError, ValueError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate_file, key_file = directory / "ca.crt", directory / "ca.key"
        if certificate_file.exists() and key_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_file}: not an elliptic curve key")
            return CertificateAuthority(directory, clock, x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(clock.now(), UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"korch-ca@{int(clock.now())}")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(key_file, key_pem(key))
        _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return CertificateAuthority(directory, clock, certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def pin(self) -> str:
        """Return the SHA-256 of the CA certificate's DER, in hex: what a join token carries."""
        return hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def issue(
        self, name: str, common_name: str, *, organizations: Sequence[str] = (), hosts: Sequence[str] = (), is_server: bool = False
    ) -> KeyPair:
        """Return the certificate kept as `<name>.crt`, made anew when missing, about to end, or for other subjects or hosts."""
        certificate_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate_file.exists() and key_file.exists():
            kept = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            if self._is_current(kept, common_name, organizations, hosts):
                return KeyPair(certificate_file.read_bytes(), key_file.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(key.public_key(), common_name, organizations=organizations, hosts=hosts, is_server=is_server)
        write_private(key_file, key_pem(key))
        _write(certificate_file, certificate, 0o644)
        return KeyPair(certificate, key_pem(key))

    def sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        hosts: Sequence[str] = (),
        is_server: bool = False,
        days: int = LEAF_DAYS,
    ) -> bytes:
        """Return a signed leaf certificate (PEM) for `public_key`."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if is_server else [])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + timedelta(days=days), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign_request(
        self, request_pem: bytes, common_name: str, *, organizations: Sequence[str] = (), hosts: Sequence[str] = (), is_server: bool = False
    ) -> bytes:
        """Return a certificate for a signing request's key; subject and hosts are ours to say. Raises ValueError for a bad request."""
        request = x509.load_pem_x509_csr(request_pem)
        public_key = request.public_key()
        if not request.is_signature_valid or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise ValueError("the certificate signing request must be signed by an ECDSA key")
        return self.sign(public_key, common_name, organizations=organizations, hosts=hosts, is_server=is_server)

    def sign_as_asked(self, request_pem: bytes, usages: Sequence[str], seconds: int | None) -> bytes:
        """Return a certificate with the subject and names of an approved signing request. Raises ValueError for one that is no good."""
        request = x509.load_pem_x509_csr(request_pem)
        if not request.is_signature_valid:
            raise ValueError("the certificate signing request's signature does not match its key")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        lifetime = min(timedelta(seconds=seconds) if seconds else timedelta(days=LEAF_DAYS), timedelta(days=LEAF_DAYS))
        purposes = [purpose for usage, purpose in _PURPOSES.items() if usage in usages]
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + lifetime, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False, enciphers_keys="key encipherment" in usages), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension in request.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, critical=extension.critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def signing_key(self, name: str) -> bytes:
        """Return the private key (PEM) kept as `<name>.key`, made if missing: for service account tokens."""
        file = self.directory / f"{name}.key"
        if not file.exists():
            write_private(file, key_pem(ec.generate_private_key(ec.SECP256R1())))
        return file.read_bytes()

    def _is_current(self, kept: x509.Certificate, common_name: str, organizations: Sequence[str], hosts: Sequence[str]) -> bool:
        left = kept.not_valid_after_utc - datetime.fromtimestamp(self._clock.now(), UTC)
        names = [attribute.value for attribute in kept.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [attribute.value for attribute in kept.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        try:
            alternative = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            present = {str(one.value) for one in alternative}
        except x509.ExtensionNotFound:
            present = set()
        return (
            left > timedelta(days=RENEW_BEFORE_DAYS)
            and names == [common_name]
            and groups == list(organizations)
            and present == set(hosts)
            and kept.issuer == self._certificate.subject
        )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read; it appears whole or not at all."""
    _write(file, content, 0o600)


def _write(file: Path, content: bytes, mode: int) -> None:
    draft = file.with_name(f".{file.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    draft.replace(file)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
