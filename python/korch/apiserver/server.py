"""An API server as one value: store, catalogue and configuration in, an ASGI application and in-process clients out.

Nothing here listens on a socket or reads a file, so any number of servers run in one process (tests, the simulator), and a
composition root decides how requests reach `app`. Requests may be served as soon as the value is made; `run` keeps the system's own
objects right and ends the open watches when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from starlette.routing import BaseRoute

from korch._core import native
from korch.api.errors import ApiError
from korch.api.features import Features
from korch.apiserver.admission import Admission
from korch.apiserver.admission.certificates import CertificateApproval, CertificateSigning, CertificateSubjectRestriction
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.admission.default_ingress_class import DefaultIngressClass
from korch.apiserver.admission.default_storage_class import DefaultStorageClass
from korch.apiserver.admission.default_toleration_seconds import TOLERATION_S_DEFAULT, DefaultTolerationSeconds
from korch.apiserver.admission.extensions import ConfiguredAdmission
from korch.apiserver.admission.limit_ranger import LimitRanger
from korch.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from korch.apiserver.admission.node_restriction import NodeRestriction
from korch.apiserver.admission.owner_references_permission_enforcement import OwnerReferencesPermissionEnforcement
from korch.apiserver.admission.persistent_volume_claim_resize import PersistentVolumeClaimResize
from korch.apiserver.admission.pod_group_protection import PodGroupProtection
from korch.apiserver.admission.pod_security import PodSecurity
from korch.apiserver.admission.priority import Priority
from korch.apiserver.admission.resource_quota import ResourceQuota
from korch.apiserver.admission.runtime_class import RuntimeClass
from korch.apiserver.admission.service_account import ServiceAccount
from korch.apiserver.admission.storage_object_in_use_protection import StorageObjectInUseProtection
from korch.apiserver.admission.taint_nodes_by_condition import TaintNodesByCondition
from korch.apiserver.aggregation.connection import Connector, FrontProxy
from korch.apiserver.aggregation.proxy import AggregationProxy
from korch.apiserver.aggregation.registry import AggregatedApis
from korch.apiserver.allocation import ServiceAllocator
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.audit.client import AuditedClient
from korch.apiserver.authn import reviews
from korch.apiserver.authn.bearer import BearerTokens, ServiceAccountSource
from korch.apiserver.authn.service_account_tokens import ServiceAccountTokens
from korch.apiserver.authz.escalation import EscalationCheck
from korch.apiserver.authz.node import node_of
from korch.apiserver.authz.policy import missing_policy
from korch.apiserver.authz.rbac import Rbac
from korch.apiserver.authz.rules import EVERYTHING
from korch.apiserver.bootstrap import Bootstrap
from korch.apiserver.codec import Codec
from korch.apiserver.crd.registry import CustomKinds
from korch.apiserver.discovery import Discovery
from korch.apiserver.dispatch import Dispatch
from korch.apiserver.flowcontrol.flow_control import SEATS_DEFAULT, FlowControl
from korch.apiserver.flowcontrol.flow_metrics import FlowMetrics
from korch.apiserver.guards import REQUEST_TIMEOUT_S_DEFAULT, Guards
from korch.apiserver.health import Health
from korch.apiserver.http import EXCHANGE_KEY, Documents, Front, build_app
from korch.apiserver.identity import APISERVER, AllowEverybody, Authenticator, Authorizer, User
from korch.apiserver.lanes import Epoch, Lanes
from korch.apiserver.ledger import Ledger
from korch.apiserver.local import LocalClient
from korch.apiserver.metrics import Metrics
from korch.apiserver.openapi import OpenAPI
from korch.apiserver.peers import Peers
from korch.apiserver.pipeline import Pipeline, Target
from korch.apiserver.records import Records, load
from korch.apiserver.resource_endpoint import ResourceEndpoint
from korch.apiserver.shared import SharedDispatch
from korch.apiserver.system_objects import missing_objects
from korch.apiserver.webhook_client import WebhookClient
from korch.client.protocol import Client
from korch.resources.openapi import native_schema
from korch.resources.resource import Catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]
# etcd takes 128 operations in a transaction.
_COMMIT_OPS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server presents itself and whom it believes.

    `cluster_dns` is where nodes answer cluster DNS, "" for nowhere.
    `node_port_range` includes both ends. `advertise_host` is an IP address: what the Service `kubernetes` leads to. `tokens`
    answers TokenReviews and TokenRequests. With `rbac` (which `authorizer` should contain) the default roles are kept in the store,
    and nobody can grant what he does not have. `routes` are served before all others, `toleration_s` is what pods get by default,
    `identity` tells servers of one cluster apart.
    """

    service_cidr: str = "10.96.0.0/16"
    node_port_range: tuple[int, int] = (30000, 32767)
    advertise_host: str = "127.0.0.1"
    advertise_port: int = 6443
    cluster_dns: str = ""
    authenticator: Authenticator = field(default_factory=AllowEverybody)
    authorizer: Authorizer = field(default_factory=AllowEverybody)
    rbac: Rbac | None = None
    # Admission plugins that are left out, by the names of their classes: upstream's --disable-admission-plugins.
    disabled_admission: frozenset[str] = frozenset()
    # Upstream's plugin OwnerReferencesPermissionEnforcement is off unless asked for.
    enforces_owner_references: bool = False
    # The plugin TaintNodesByCondition: new nodes take no pods until the node lifecycle controller has seen them ready.
    taints_new_nodes: bool = True
    tokens: ServiceAccountTokens | None = None
    toleration_s: int = TOLERATION_S_DEFAULT
    identity: str = ""
    routes: Sequence[BaseRoute] = ()
    auditor: Auditor | None = None
    # Seats of flow control; 0 switches it off.
    seats: int = SEATS_DEFAULT
    request_timeout_s: float = REQUEST_TIMEOUT_S_DEFAULT
    # Answers TokenReviews, with more than `tokens` know; what it has to ask others is asked before `authenticator` is.
    bearer: BearerTokens | None = None
    front_proxy: FrontProxy = field(default_factory=FrontProxy)
    # As the catalogue was made with.
    features: Features = field(default_factory=Features)


class ApiServer:
    """Serves the kinds of `catalogue` out of `storage`."""

    def __init__(self, runtime: Runtime, storage: Storage, catalogue: Catalogue, config: ServerConfig = ServerConfig()) -> None:
        self._runtime = runtime
        self._storage = storage
        self._config = config
        self._closing = asyncio.Event()
        self._records = Records(storage)
        self._catalogue = catalogue
        ledger = Ledger(storage) if storage.is_shared else None
        self.services = ServiceAllocator(cidr=config.service_cidr, node_ports=config.node_port_range, rng=runtime.rng, ledger=ledger)
        self.pipeline = Pipeline(
            runtime=runtime,
            records=self._records,
            catalogue=catalogue,
            codec=Codec(native_schema()),
            admission=self._admission(),
            # Quotas are counted when everything else has been filled in.
            validating=[PodSecurity(self._records), ResourceQuota(self._records, runtime.clock)],
            allocators={("", "services"): self.services},
        )
        self.dispatch = SharedDispatch(self.pipeline) if storage.is_shared else Dispatch(self.pipeline)
        self._components: dict[str, Callable[[], str]] = {"etcd-0": self._storage_problem}
        self.dispatch.computed["", "componentstatuses"] = self._component_statuses
        self.webhooks = WebhookClient(self._find, runtime.rng)
        self.custom_kinds = CustomKinds(self.pipeline, runtime, self.webhooks)
        self.custom_kinds.load()
        self.pipeline.prepare_storage = self.custom_kinds.prepare_storage
        proxy = config.front_proxy
        connector = Connector(proxy.certificate, proxy.key)
        self.aggregated = AggregatedApis(self.pipeline, runtime, self.webhooks, connector, proxy.authentication)
        self.pipeline.extensions = ConfiguredAdmission(
            self._records, catalogue, self.pipeline.codec, self.pipeline.managers, self.webhooks, runtime.rng, config.authorizer
        )
        self._add_reviews()
        self._rebuild_services()
        self.metrics = Metrics()
        self.flow = self._flow_control(config)
        where = {"address": config.advertise_host, "port": config.advertise_port}
        peers = (
            Peers(self.client(APISERVER), runtime, identity=config.identity or runtime.rng.uid(), **where) if storage.is_shared else None
        )
        self._bootstrap = Bootstrap(
            self.client(APISERVER),
            peers=peers,
            first=lambda: self.services.enter(self._present_services()),
            service_address=self.services.first_address,
            cluster_dns=config.cluster_dns,
            **where,
        )
        self._has_policy = False
        self.health = Health(
            live={"ping": lambda: "", "storage": self._storage.fault},
            ready={
                "storage-readiness": self._storage_problem,
                "poststarthook/bootstrap": lambda: "" if self._bootstrap.is_done else "the system's objects do not exist yet",
                "poststarthook/start-cluster-authentication-info-controller": lambda: (
                    "" if self.aggregated.is_trusted else "the ConfigMap of trust does not exist yet"
                ),
                "poststarthook/rbac/bootstrap-roles": lambda: "" if self._has_policy else "the default roles do not exist yet",
                "shutdown": lambda: "the server is shutting down" if self._closing.is_set() else "",
            },
        )
        self._epoch = Epoch(storage, catalogue)
        self.endpoint = ResourceEndpoint(self.dispatch, runtime, self._closing, config.authorizer)
        self._inner, self.app = self._applications(config)

    def _applications(self, config: ServerConfig) -> tuple[AggregationProxy, Front]:
        """Return what answers requests, without and with the question who asks and may they."""
        documents = Documents(
            discovery=Discovery(self._catalogue, self.aggregated.all),
            openapi=OpenAPI(self._catalogue, remotes=self.aggregated.all),
            health=self.health,
            metrics=self.metrics,
            runtime=self._runtime,
            server_address=f"{config.advertise_host}:{config.advertise_port}",
        )
        own = build_app(documents, self.endpoint, config.routes, self._runtime)
        inner = AggregationProxy(own, self.aggregated, self.webhooks, EXCHANGE_KEY)
        guards = Guards(
            authenticator=config.authenticator,
            authorizer=config.authorizer,
            auditor=config.auditor,
            flow=self.flow,
            resolve=config.bearer.resolve_headers if config.bearer is not None and config.bearer.is_remote else None,
            request_timeout_s=config.request_timeout_s,
        )
        return inner, self._front(inner, guards)

    def _front(self, inner: AggregationProxy, guards: Guards) -> Front:
        endpoint, metrics, runtime = self.endpoint, self.metrics, self._runtime
        lanes = Lanes(endpoint=endpoint, guards=guards, metrics=metrics, runtime=runtime, epoch=self._epoch)
        return Front(inner, runtime=runtime, guards=guards, metrics=metrics, catalogue=self._catalogue, endpoint=endpoint, lanes=lanes)

    def _flow_control(self, config: ServerConfig) -> FlowControl | None:
        if not config.seats:
            return None
        group = "flowcontrol.apiserver.k8s.io"
        schemas = Configurations(self._storage, self._catalogue, group, "flowschemas")
        levels = Configurations(self._storage, self._catalogue, group, "prioritylevelconfigurations")
        flow = FlowControl(
            schemas.all,
            levels.all,
            self._runtime.clock,
            self._count,
            total_seats=config.seats,
            wait_s_max=config.request_timeout_s / 4,
        )
        self.metrics.add(FlowMetrics(flow))
        return flow

    def _count(self, group: str, version: str, plural: str, namespace: str) -> int:
        """Return how many objects a collection holds."""
        resource = self._catalogue.get(group, version, plural)
        if resource is None:
            return 0
        prefix = resource.key_prefix(namespace)
        return self._storage.native.count(prefix, prefix[:-1] + bytes([prefix[-1] + 1]))

    @property
    def connectors(self) -> dict[tuple[str, str], Any]:
        """HTTP handlers `async (request, info) -> response` by (plural, subresource); each takes the place of the pipeline."""
        return self.endpoint.connectors

    @property
    def socket_connectors(self) -> dict[tuple[str, str], Any]:
        """WebSocket handlers `async (socket, info) -> None` by (plural, subresource)."""
        return self.endpoint.socket_connectors

    def client(self, user: User = APISERVER) -> Client:
        """Return a client of this server, in this process, acting as `user`."""
        client = LocalClient(self.dispatch, user, self._runtime.rng, self._raw)
        auditor = self._config.auditor
        return client if auditor is None else AuditedClient(client, user, auditor, self._runtime.rng)

    def get_object(self, plural: str, namespace: str, name: str) -> Object:
        """Return an object of the core group. Raises NotFound."""
        target = self.dispatch.target(APISERVER, group="", version="v1", plural=plural, namespace=namespace, name=name)
        return orjson.loads(self.pipeline.get(target))

    def uid_of(self, plural: str, namespace: str, name: str) -> str:
        """Return the uid of an object of the core group, "" when there is none."""
        try:
            return self.get_object(plural, namespace, name)["metadata"]["uid"]
        except ApiError:
            return ""

    def _node_of(self, namespace: str, pod: str) -> str:
        return self.get_object("pods", namespace, pod)["spec"].get("nodeName") or ""

    def is_ready(self) -> bool:
        """Whether /readyz says ok."""
        return not self.health.problems()

    async def run(self) -> None:
        """Keep the system's objects right; returns only when cancelled, and then ends all watches."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.custom_kinds.run(), name="custom-kinds")
                await self._provide()
                group.create_task(self._bootstrap.run(), name="bootstrap")
                group.create_task(self.aggregated.run(), name="aggregation")
        finally:
            self.close_streams()

    async def _provide(self) -> None:
        """Make what the system needs from the start, in few commits. Another server may be making the same. Raises native.StoreError."""
        while operations := self._missing():
            for start in range(0, len(operations), _COMMIT_OPS_MAX):
                try:
                    await self._storage.commit(operations[start : start + _COMMIT_OPS_MAX])
                except (native.KeyExists, native.RevisionMismatch):
                    await self._storage.settled()
                    break
            else:
                break
        self._has_policy = True

    def _missing(self) -> list[Op]:
        operations = missing_objects(self._records, self._catalogue, self._runtime, service_cidr=self._config.service_cidr)
        if self._config.rbac is not None:
            operations += missing_policy(self._records, self._runtime, self._config.features)
        return operations

    def close_streams(self) -> None:
        """End every open watch and turn unready, so that an HTTP server in front can finish its connections."""
        self._closing.set()

    def _find(self, plural: str, group: str, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """Return the stored objects of a kind in a namespace that carry `labels`."""
        resource = self._catalogue.get(group, "v1", plural)
        if resource is None:
            return []
        selector = [("label", key, "=", (value,)) for key, value in labels.items()]
        return [orjson.loads(value) for value in self._storage.range(resource.key_prefix(namespace), selector=selector).values]

    def _admission(self) -> list[Admission]:
        records, catalogue = self._records, self._catalogue
        authorizer, rng = self._config.authorizer, self._runtime.rng
        # Upstream's order.
        plugins: list[Admission] = [
            NamespaceLifecycle(records, catalogue),
            LimitRanger(records),
            ServiceAccount(records, catalogue, rng),
            NodeRestriction(records),
            *([TaintNodesByCondition()] if self._config.taints_new_nodes else []),
            Priority(records, catalogue, ranks_groups=self._config.features.generic_workload),
            DefaultTolerationSeconds(self._config.toleration_s),
            DefaultStorageClass(records),
            StorageObjectInUseProtection(),
            *([PodGroupProtection()] if self._config.features.generic_workload else []),
            PersistentVolumeClaimResize(records),
            RuntimeClass(records),
            CertificateApproval(authorizer),
            CertificateSigning(authorizer),
            CertificateSubjectRestriction(),
            DefaultIngressClass(records),
        ]
        if self._config.enforces_owner_references:
            plugins.append(OwnerReferencesPermissionEnforcement(authorizer, catalogue))
        if self._config.rbac is not None:
            plugins.append(EscalationCheck(self._config.rbac))
        return [one for one in plugins if type(one).__name__ not in self._config.disabled_admission]

    def _add_reviews(self) -> None:
        answerers, authorizer, tokens = self.dispatch.answerers, self._config.authorizer, self._config.tokens
        access = "authorization.k8s.io"

        def review_access(target: Target, review: Object) -> Object:
            kind, namespace = target.resource.kind, target.namespace
            return reviews.review_access(review, authorizer, target.user, kind=kind, namespace=namespace)

        for plural in ("selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews"):
            answerers[access, plural, ""] = review_access
        answerers[access, "selfsubjectrulesreviews", ""] = self._review_rules
        answerers["authentication.k8s.io", "selfsubjectreviews", ""] = lambda target, review: reviews.review_self(review, target.user)
        if tokens is None:
            return

        def request_token(target: Target, request: Object) -> Object:
            namespace, name = target.namespace, target.name
            return reviews.request_token(
                request, namespace, name, tokens=tokens, lookup=self.uid_of, node_of=self._node_of, rng=self._runtime.rng
            )

        bearer = self._config.bearer or BearerTokens([ServiceAccountSource(tokens)], audiences=tokens.audiences)
        answerers["authentication.k8s.io", "tokenreviews", ""] = lambda _target, review: reviews.review_token(review, bearer)
        answerers["", "serviceaccounts", "token"] = request_token

    def add_component(self, name: str, problem: Callable[[], str]) -> None:
        """Show a part of the control plane as ComponentStatus `name`; `problem()` says what is wrong with it, "" for nothing."""
        self._components[name] = problem

    def _component_statuses(self) -> list[Object]:
        found: list[Object] = []
        for name, problem in sorted(self._components.items()):
            wrong = problem()
            condition = (
                {"type": "Healthy", "status": "False", "error": wrong} if wrong else {"type": "Healthy", "status": "True", "message": "ok"}
            )
            found.append({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
        return found

    def _review_rules(self, target: Target, review: Object) -> Object:
        user, rbac = target.user, self._config.rbac
        namespace = str((review.get("spec") or {}).get("namespace") or "")
        rules = EVERYTHING if rbac is None else rbac.rules_for(user, namespace)
        return reviews.review_rules(review, rules, is_complete=not node_of(user))

    def _rebuild_services(self) -> None:
        self.services.rebuild(self._present_services())

    def _present_services(self) -> list[Object]:
        services = self._catalogue.get("", "v1", "services")
        return [load(services, value) for value in self._storage.range(services.key_prefix()).values] if services is not None else []

    def _storage_problem(self) -> str:
        try:
            self._storage.revision()
        except native.StoreError as error:
            return str(error)
        return self._storage.problem()

    async def _raw(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """Send one request through the whole application and return the body. Raises ApiError for codes of 400 and above."""
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"content-type", content_type.encode()), (b"accept", b"application/json")],
            "client": ("local", 0),
            "server": ("local", 0),
        }
        code = 0
        chunks: list[bytes] = []
        sent = False

        async def receive() -> Object:
            nonlocal sent
            if sent:
                await self._closing.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Object) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            else:
                chunks.append(message.get("body", b""))

        await self._application_for(APISERVER)(scope, receive, send)
        answer = b"".join(chunks)
        if code >= 400:
            try:
                raise ApiError.from_status(orjson.loads(answer))
            except orjson.JSONDecodeError:
                raise ApiError(code, "InternalError", answer.decode(errors="replace")) from None
        return answer

    def _application_for(self, user: User) -> Front:
        """Return the whole application for one user who has proven it otherwise (an in-process client)."""
        trusted = AllowEverybody(user)
        return self._front(self._inner, Guards(authenticator=trusted, authorizer=trusted, auditor=self._config.auditor))
