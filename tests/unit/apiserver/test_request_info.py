"""What a request is about, from its method, path and query alone."""

from __future__ import annotations

import pytest

from korch.apiserver.request_info import parse

# method, path, query -> verb, group, version, namespace, resource, subresource, name
TABLE = [
    ("GET", "/api/v1/pods", {}, ("list", "", "v1", "", "pods", "", "")),
    ("GET", "/api/v1/namespaces/d/pods", {}, ("list", "", "v1", "d", "pods", "", "")),
    ("GET", "/api/v1/namespaces/d/pods", {"watch": "true"}, ("watch", "", "v1", "d", "pods", "", "")),
    ("GET", "/api/v1/namespaces/d/pods", {"watch": "0"}, ("list", "", "v1", "d", "pods", "", "")),
    ("GET", "/api/v1/namespaces/d/pods/p", {"watch": "1"}, ("get", "", "v1", "d", "pods", "", "p")),
    ("GET", "/api/v1/watch/namespaces/d/pods/p", {}, ("watch", "", "v1", "d", "pods", "", "p")),
    ("POST", "/api/v1/namespaces/d/pods", {}, ("create", "", "v1", "d", "pods", "", "")),
    ("PUT", "/apis/apps/v1/namespaces/d/deployments/web/scale", {}, ("update", "apps", "v1", "d", "deployments", "scale", "web")),
    ("PATCH", "/api/v1/nodes/n/status", {}, ("patch", "", "v1", "", "nodes", "status", "n")),
    ("DELETE", "/api/v1/namespaces/d/pods/p", {}, ("delete", "", "v1", "d", "pods", "", "p")),
    ("DELETE", "/api/v1/namespaces/d/pods", {}, ("deletecollection", "", "v1", "d", "pods", "", "")),
    ("GET", "/api/v1/namespaces", {}, ("list", "", "v1", "", "namespaces", "", "")),
    ("GET", "/api/v1/namespaces/d", {}, ("get", "", "v1", "d", "namespaces", "", "d")),
    ("PUT", "/api/v1/namespaces/d/finalize", {}, ("update", "", "v1", "d", "namespaces", "finalize", "d")),
    ("GET", "/api/v1/namespaces/d/status", {}, ("get", "", "v1", "d", "namespaces", "status", "d")),
    ("HEAD", "/api/v1/namespaces/d/pods/p", {}, ("get", "", "v1", "d", "pods", "", "p")),
]


@pytest.mark.parametrize(("method", "path", "query", "expected"), TABLE)
def test_a_resource_path_is_read_as_upstream_reads_it(method, path, query, expected):
    info = parse(method, path, query)
    assert info.is_resource
    assert (info.verb, info.group, info.version, info.namespace, info.resource, info.subresource, info.name) == expected


@pytest.mark.parametrize(
    "path", ["/", "/version", "/api", "/api/v1", "/apis/apps/v1", "/healthz/ping", "/api/v1/namespaces/d/pods/p/log/more"]
)
def test_other_paths_are_no_resources_and_keep_the_http_method_as_verb(path):
    info = parse("GET", path, {})
    assert not info.is_resource
    assert info.verb == "get"


def test_what_follows_proxy_is_the_targets_own_path():
    info = parse("GET", "/api/v1/namespaces/d/services/http:web:80/proxy/a/b", {})
    assert (info.name, info.subresource, info.tail) == ("http:web:80", "proxy", "/a/b")
    assert parse("POST", "/api/v1/nodes/n/proxy", {}).tail == "/"
