"""The pure parts of running a pod: limits, security, files, volumes' contents, image names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from korch_agent.cgroups import quota_of, shares_of, weight_of
from korch_agent.cri.protocol import ContainerStatus, Dns, Image
from korch_agent.images import normalize
from korch_agent.pods import files
from korch_agent.pods.observed import Crash, back_off_until, next_crash
from korch_agent.pods.resources import container_resources, pod_limits, qos_class
from korch_agent.pods.security import ConfigError, container_security
from korch_agent.pods.subpath import resolve
from korch_agent.volumes import atomic
from korch_agent.volumes.payload import VolumeError, config_map_files

GIB = 1 << 30


def pod(*resources: dict[str, Any], **spec: Any) -> dict[str, Any]:
    containers = [{"name": f"c{number}", "resources": one} for number, one in enumerate(resources)]
    return {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": containers} | spec}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}, "Burstable"),
        ({"limits": {"memory": "1Gi"}}, "Burstable"),
    ],
)
def test_the_quality_of_service_follows_requests_and_limits(resources: dict[str, Any], expected: str) -> None:
    assert qos_class(pod(resources)) == expected


def test_a_pods_cgroup_gets_the_sums_and_no_limit_unless_every_container_has_one() -> None:
    both = pod_limits(
        pod({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "64Mi"}}, {"limits": {"cpu": "500m", "memory": "1Gi"}})
    )
    assert (both.cpu_shares, both.cpu_quota, both.memory_limit) == (614, 150_000, GIB + (64 << 20))
    one = pod_limits(pod({"limits": {"cpu": "1"}}, {"requests": {"cpu": "1"}}))
    assert (one.cpu_shares, one.cpu_quota, one.memory_limit) == (2048, -1, -1)


@pytest.mark.parametrize(
    ("resources", "score"),
    [
        ({}, 1000),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, -997),
        ({"requests": {"memory": "1Gi"}}, 875),
        ({"requests": {"memory": "8Gi"}}, 3),
        ({"requests": {"cpu": "1"}}, 999),
    ],
)
def test_who_asked_for_more_memory_is_killed_later(resources: dict[str, Any], score: int) -> None:
    made = pod(resources)
    assert container_resources(made, made["spec"]["containers"][0], memory_capacity=8 * GIB).oom_score_adj == score


def test_shares_quota_and_weight_are_upstreams() -> None:
    assert [shares_of(one) for one in (0, 1, 100, 1000, 10**9)] == [2, 2, 102, 1024, 262_144]
    assert [quota_of(one) for one in (0, 1, 500, 2000)] == [0, 1000, 50_000, 200_000]
    assert [weight_of(one) for one in (2, 1024, 262_144)] == [1, 100, 10_000]


@pytest.mark.parametrize(
    ("image", "context", "message"),
    [
        (Image(id="i", user=0), {}, "image will run as root"),
        (Image(id="i"), {}, "image will run as root"),
        (Image(id="i", username="web"), {}, r"image has non-numeric user \(web\), cannot verify user is non-root"),
        (Image(id="i", user=5), {"runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
def test_a_container_that_must_not_be_root_and_would_be_is_refused(image: Image, context: dict[str, Any], message: str) -> None:
    made = pod({}, securityContext={"runAsNonRoot": True} | context)
    with pytest.raises(ConfigError, match=message):
        container_security(made, made["spec"]["containers"][0], image)


def test_a_containers_own_security_context_wins_over_the_pods() -> None:
    made = pod({}, securityContext={"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [7]})
    container = made["spec"]["containers"][0] | {
        "securityContext": {"runAsUser": 5, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    }
    found = container_security(made, container, Image(id="i"))
    assert (found.user, found.group, found.supplemental_groups) == (5, 3000, (7, 2000))
    assert (found.add_capabilities, found.drop_capabilities, found.no_new_privileges) == (("NET_ADMIN",), ("ALL",), True)
    assert "/proc/kcore" in found.masked_paths


def test_the_hosts_file_names_the_pod_and_its_aliases(tmp_path: Path) -> None:
    made = pod(hostname="web-0", subdomain="web", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    text = files.hosts_file(made, ("10.0.0.7",), cluster_domain="cluster.local")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.0.0.7\tweb-0.web.d.svc.cluster.local\tweb-0\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    own = tmp_path / "hosts"
    own.write_text("192.0.2.1 here\n")
    assert files.hosts_file(pod(hostNetwork=True), (), cluster_domain="x", host_file=own) == (
        "# Kubernetes-managed hosts file (host network).\n192.0.2.1 here\n"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            Dns(
                servers=("10.96.0.10",),
                searches=("d.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
                options=("ndots:5",),
            ),
        ),
        ({"dnsPolicy": "Default"}, Dns(servers=("192.0.2.53",), searches=("corp.example",), options=("timeout:1",))),
        ({"hostNetwork": True}, Dns(servers=("192.0.2.53",), searches=("corp.example",), options=("timeout:1",))),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["s"], "options": [{"name": "ndots", "value": "2"}]},
            },
            Dns(servers=("1.1.1.1",), searches=("s",), options=("ndots:2",)),
        ),
    ],
)
def test_resolv_conf_follows_the_dns_policy(spec: dict[str, Any], expected: Dns, tmp_path: Path) -> None:
    host = tmp_path / "resolv.conf"
    host.write_text("nameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n")
    assert files.dns_of(pod(**spec), cluster_dns="10.96.0.10", cluster_domain="cluster.local", host_file=host) == expected


def test_a_termination_message_is_the_file_or_the_end_of_the_log_of_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("2027-01-01T00:00:00Z stdout F first\n2027-01-01T00:00:00Z stderr P half\n2027-01-01T00:00:00Z stderr F second\n")
    failed = ContainerStatus(id="i", name="c", state="exited", exit_code=1, log_path=str(log))
    fallback = {"name": "c", "terminationMessagePolicy": "FallbackToLogsOnError"}
    assert files.termination_message(tmp_path, fallback, failed) == "first\nhalfsecond\n"
    assert files.termination_message(tmp_path, {"name": "c"}, failed) == ""
    said = files.termination_file(tmp_path, "c", 0)
    said.parent.mkdir(parents=True)
    said.write_text("x" * 5000)
    assert files.termination_message(tmp_path, fallback, failed) == "x" * 4096


def test_files_are_swapped_at_once_and_only_when_they_differ(tmp_path: Path) -> None:
    one = {"a": atomic.File(b"1"), "dir/b": atomic.File(b"2", 0o400)}
    assert atomic.write(tmp_path, one)
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "dir" / "b").read_bytes() == b"2"
    assert (tmp_path / "a").readlink() == Path("..data/a")
    first = os.readlink(tmp_path / "..data")
    assert not atomic.write(tmp_path, one)
    assert os.readlink(tmp_path / "..data") == first
    assert atomic.write(tmp_path, {"a": atomic.File(b"new")})
    assert (tmp_path / "a").read_bytes() == b"new"
    assert set(os.listdir(tmp_path)) == {"..data", os.readlink(tmp_path / "..data"), "a"}


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../../up", "..data"])
def test_a_file_that_would_leave_its_volume_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        atomic.write(tmp_path, {path: atomic.File(b"")})


def test_a_sub_path_is_made_inside_the_volume_and_never_outside(tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    assert resolve(volume, "a/b") == volume / "a" / "b"
    assert (volume / "a" / "b").is_dir()
    (volume / "link").symlink_to(outside)
    for path in ("link", "link/x", "../outside", "/etc"):
        with pytest.raises(ConfigError):
            resolve(volume, path)
    assert list(outside.iterdir()) == []


def test_a_config_maps_items_choose_paths_and_modes_and_must_exist() -> None:
    found = {"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Aw=="}}
    everything = config_map_files({"name": "cm"}, found, namespace="d", mode=0o644)
    assert {path: file.content for path, file in everything.items()} == {"a": b"1", "b": b"2", "c": b"\x03"}
    chosen = {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}
    assert config_map_files(chosen, found, namespace="d", mode=0o644) == {"x/y": atomic.File(b"1", 0o400)}
    with pytest.raises(VolumeError, match="configmap references non-existent config key: z"):
        config_map_files({"name": "cm", "items": [{"key": "z", "path": "z"}]}, found, namespace="d", mode=0o644)
    with pytest.raises(VolumeError, match='configmap "cm" not found'):
        config_map_files({"name": "cm"}, None, namespace="d", mode=0o644)
    assert config_map_files({"name": "cm", "optional": True}, None, namespace="d", mode=0o644) == {}


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("app@sha256:" + "0" * 64, "docker.io/library/app@sha256:" + "0" * 64),
    ],
)
def test_image_names_in_full(name: str, full: str) -> None:
    assert normalize(name) == full


def test_the_back_off_doubles_to_its_cap_and_starts_over_after_ten_quiet_minutes() -> None:
    crash, delays = None, []
    for _ in range(7):
        crash = next_crash(crash, now=0.0, finished_at=0.0)
        delays.append(crash.delay_s)
    assert delays == [10, 20, 40, 80, 160, 300, 300]
    assert back_off_until(Crash(40, 100), finished_at=200) == 240
    assert back_off_until(Crash(40, 100), finished_at=701) == 0
    assert next_crash(Crash(300, 100), now=800, finished_at=701) == Crash(10, 800)
