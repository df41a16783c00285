"""kubeconfig files are read and written as kubectl does."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
import yaml

from korch.client.kubeconfig import Kubeconfig, KubeconfigError, in_cluster, load


def write(path: Path, **changes: object) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://a:6443", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"token": "t", "client-key-data": base64.b64encode(b"KEY").decode()}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "current-context": "x",
    } | changes
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_current_context_names_server_user_and_namespace(tmp_path: Path) -> None:
    config = load(write(tmp_path / "config"))
    assert config.namespace() == "team"
    client = config.client()
    assert client.url == "https://a:6443"
    assert client.credentials.token == "t"
    assert client.credentials.client_key_data == b"KEY"


def test_file_names_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    assert load(write(tmp_path / "config")).client().credentials.ca_file == str(tmp_path / "ca.crt")


def test_of_several_files_the_first_to_name_a_thing_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "one", clusters=[{"name": "c", "cluster": {"server": "https://first"}}])
    extra = [{"name": "c", "cluster": {"server": "https://second"}}, {"name": "other", "cluster": {"server": "https://other"}}]
    second = write(tmp_path / "two", clusters=extra, **{"current-context": "y"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    config = load()
    assert config.client().url == "https://first"
    assert set(config.clusters) == {"c", "other"}
    assert config.current_context == "x"


def test_what_is_saved_reads_back_and_is_private(tmp_path: Path) -> None:
    made = Kubeconfig()
    made.add("korch", cluster={"server": "https://b"}, user={"token": "s"}, namespace="d")
    made.save(tmp_path / "sub" / "config")
    assert load(tmp_path / "sub" / "config") == made
    assert stat.S_IMODE((tmp_path / "sub" / "config").stat().st_mode) == 0o600
    assert [one.name for one in (tmp_path / "sub").iterdir()] == ["config"]


WRONG = [
    ({"current-context": ""}, "current-context is not set"),
    ({"current-context": "z"}, 'context "z" does not exist'),
    ({"users": []}, 'user "u" does not exist'),
    ({"users": [{"name": "u", "user": {"exec": {"command": "login"}}}]}, "plugin \\(exec\\)"),
    ({"users": [{"name": "u", "user": {"client-key-data": "%%%"}}]}, "client-key-data: not base64"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    config = load(write(tmp_path / "config", **changes))
    with pytest.raises(KubeconfigError, match=message):
        config.client()


@pytest.mark.parametrize("text", ["- a\n- list\n", "{not yaml"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(KubeconfigError, match="config"):
        load(tmp_path / "config")


def test_a_pod_finds_its_server_and_rereads_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigError, match="not in a cluster"):
        in_cluster(tmp_path)
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    client = in_cluster(tmp_path)
    assert client.url == "https://[fd00::1]:443"
    assert client.credentials.token_file == str(tmp_path / "token")
