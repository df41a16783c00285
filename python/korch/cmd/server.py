"""`korch server`: store, API, front door, and (unless they run elsewhere) controllers, scheduler and simulated nodes in one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from korch._core import native
from korch.api.errors import NotFound
from korch.api.features import Features
from korch.apiserver.aggregation.connection import FrontProxy
from korch.apiserver.authn.authenticator import ClusterAuthenticator
from korch.apiserver.authn.bearer import BearerTokens, ServiceAccountSource
from korch.apiserver.authn.bootstrap_tokens import NAMESPACE, BootstrapTokens
from korch.apiserver.authn.service_account_tokens import DEFAULT_ISSUER, ServiceAccountTokens
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.node import NodeAuthorizer
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.grants import GUARDED
from korch.apiserver.http import Front
from korch.apiserver.identity import User
from korch.apiserver.inbox import Inbox
from korch.apiserver.join import join_routes
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.server import ApiServer, ServerConfig
from korch.apiserver.store_routes import store_routes
from korch.apiserver.upgrades import PROTOCOL
from korch.client.controller import Controller
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.cmd.access_options import AccessOptions, access_options
from korch.cmd.credentials import write_credentials
from korch.cmd.datastore import DatastoreOptions, Leadership, datastore_options, open_storage
from korch.cmd.etcd_front import etcd_front
from korch.cmd.feature_options import feature_options
from korch.cmd.identity import share_identity
from korch.cmd.layout import Layout
from korch.cmd.store_stats import figures
from korch.controllers import ControllerConfig, all_controllers
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.runtime.handover import Handover
from korch.runtime.log import configure, get_logger
from korch.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from korch.apiserver.streaming import Streaming

_FRONT_THREADS = 2
# As everywhere in Kubernetes: 10.96.0.10 of 10.96.0.0/16.
_CLUSTER_DNS_HOST = 10
_STOP_GRACE_S = 2
_CHECK_CERTIFICATES_EVERY_S = 3600.0
# Requests leave next to no cycles behind, but each makes hundreds of dicts: look for cycles less often than Python does by itself.
_GARBAGE_THRESHOLDS = (20_000, 20, 20)
# More simulated nodes than this bring their own pod ranges, because the usual pod network has 256 parts and real nodes need some, and
# renew their leases as seldom as may be, because that is all that they do most of the time: seconds, and at most a share of the
# silence after which a node is lost. Some dozens of them do so at once and share a commit, which holds others up for milliseconds.
_FEW_SIM_NODES = 100
_SIM_RENEW_S = 30.0
_SIM_RENEW_SHARE = 0.6
_SIM_TICK_S = 0.25

log = get_logger("server")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What `korch server` was asked for. `binds` and `advertise` are HOST:PORT."""

    binds: tuple[str, ...]
    advertise: str
    service_cidr: str
    cluster_cidr: str
    cluster_dns: str
    node_monitor_grace_period_s: float
    sim_nodes: int
    with_controllers: bool
    with_scheduler: bool
    etcd_listen: str
    datastore: DatastoreOptions
    access: AccessOptions = field(default_factory=AccessOptions)
    features: Features = field(default_factory=Features)


@click.command()
@click.option("--data-dir", help="Where everything is kept. Default /var/lib/korch as root.")
@click.option(
    "--bind", "binds", multiple=True, default=("127.0.0.1:6443",), show_default=True, help="HOST:PORT to listen on; may be given again."
)
@click.option("--advertise", default="", help="HOST:PORT at which pods and nodes reach the server. Default: the first --bind.")
@click.option("--service-cidr", default="10.96.0.0/16", show_default=True, help="Addresses of Services.")
@click.option("--cluster-cidr", default="10.244.0.0/16", show_default=True, help="Addresses of pods.")
@click.option("--cluster-dns", default="", help="Address at which nodes answer cluster DNS. Default: the tenth of --service-cidr.")
@click.option("--node-monitor-grace-period", default=50.0, show_default=True, help="Seconds of silence after which a node is NotReady.")
@click.option("--sim-nodes", default=0, show_default=True, help="Simulated nodes to run.")
@click.option("--without-controllers", is_flag=True, help="Leave them to `korch controller-manager`.")
@click.option("--without-scheduler", is_flag=True, help="Leave it to `korch scheduler`.")
@click.option("--etcd-listen", default="", help="HOST:PORT for the etcd API of the store, over TLS; see pki/etcd in the data directory.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"]))
@datastore_options
@access_options
@feature_options(with_versions=True)
def server(
    data_dir: str | None,
    binds: tuple[str, ...],
    advertise: str,
    service_cidr: str,
    cluster_cidr: str,
    cluster_dns: str,
    node_monitor_grace_period: float,
    sim_nodes: int,
    without_controllers: bool,
    without_scheduler: bool,
    etcd_listen: str,
    log_level: str,
    datastore: DatastoreOptions,
    access: AccessOptions,
    features: Features,
) -> None:
    """Run the API server, with controllers and scheduler unless told otherwise."""
    configure(level=log_level)
    if etcd_listen and datastore.etcd is not None:
        raise click.UsageError("--etcd-listen serves a store of this server's own; with --datastore, speak to that cluster itself")
    options = ServerOptions(
        binds=binds,
        advertise=advertise or binds[0],
        service_cidr=service_cidr,
        cluster_cidr=cluster_cidr,
        cluster_dns=cluster_dns or str(ipaddress.ip_network(service_cidr)[_CLUSTER_DNS_HOST]),
        node_monitor_grace_period_s=node_monitor_grace_period,
        sim_nodes=sim_nodes,
        with_controllers=not without_controllers,
        with_scheduler=not without_scheduler,
        etcd_listen=etcd_listen,
        datastore=datastore,
        access=access,
        features=features,
    )
    layout = Layout.at(data_dir)
    layout.make()
    if datastore.etcd is not None:
        asyncio.run(share_identity(layout, datastore, Runtime()))

    async def serve() -> None:
        # Made within the loop, because what follows a store listens on it from the first watch.
        await Server(layout, options, Runtime()).run()

    asyncio.run(serve())


class Server:
    """One server process. Construct, then `await run()`."""

    def __init__(self, layout: Layout, options: ServerOptions, runtime: Runtime) -> None:
        self._layout = layout
        self._options = options
        self._runtime = runtime
        self._authority = CertificateAuthority.open(layout.pki, runtime.clock)
        self._storage = open_storage(layout, options.datastore, runtime)
        self._leadership = Leadership(options.datastore, runtime)
        self._controllers: list[Controller] = []
        self._shared_informers: Informers | None = None
        self._scheduler: Scheduler | None = None
        self._catalogue = catalogue(options.features)
        self._write_credentials()
        self._tokens = ServiceAccountTokens(
            self._authority.signing_key("service-account"),
            issuer=DEFAULT_ISSUER,
            audiences=[DEFAULT_ISSUER],
            clock=runtime.clock,
            lookup=self._uid_of,
        )
        bearer = self._bearer_tokens()
        self._authenticator = ClusterAuthenticator(bearer, layout.token.read_text().strip())
        rbac = Rbac(self._storage)
        host, _, port = options.advertise.rpartition(":")
        self._api = ApiServer(
            runtime,
            self._storage,
            self._catalogue,
            ServerConfig(
                service_cidr=options.service_cidr,
                advertise_host=host,
                advertise_port=int(port),
                cluster_dns=options.cluster_dns,
                authenticator=self._authenticator,
                authorizer=Chain([SuperUsers(), NodeAuthorizer(self._storage), rbac]),
                rbac=rbac,
                tokens=self._tokens,
                bearer=bearer,
                front_proxy=self._front_proxy(),
                identity=self._leadership.identity,
                auditor=options.access.auditor(runtime.clock),
                seats=options.access.seats,
                request_timeout_s=options.access.request_timeout_s,
                features=options.features,
                routes=[
                    *join_routes(self._authority, self._authenticator),
                    *store_routes(self._storage.native, self._authenticator, layout.run, figures),
                    Route("/korch/v1/components", self._show_components, methods=["GET"]),
                    Route("/openid/v1/jwks", self._show(self._tokens.key_set()), methods=["GET"]),
                    Route("/.well-known/openid-configuration", self._show(self._tokens.discovery()), methods=["GET"]),
                ],
            ),
        )
        self._add_component_statuses()
        self._streaming: Streaming | None = None
        self._connect_agents()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then stop taking requests, end the watches, flush the store."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        application = _Application(self._api.app, str(self._layout.api_socket))
        front = self._front()
        inbox = Inbox(front, self._api.app, grace_s=_STOP_GRACE_S)
        self._catalogue.on_change(front.forget_grants)
        self._api.metrics.front_reads = front.reads
        etcd = self._etcd_front()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(application.serve(), name="application"),
                    tasks.create_task(inbox.serve(), name="inbox"),
                    tasks.create_task(self._api.run(), name="api"),
                    tasks.create_task(self._storage.run(), name="storage"),
                ]
                while not application.started:
                    await asyncio.sleep(0.005)
                bound = await self._runtime.offload.run(front.start)
                log.info("API served", addresses=bound)
                # Modules and catalogue stay for good: no collection needs to look at them again.
                gc.freeze()
                gc.set_threshold(*_GARBAGE_THRESHOLDS)
                if etcd is not None:
                    log.info("etcd API served", addresses=await self._runtime.offload.run(etcd.start))
                running.append(tasks.create_task(self._keep_serving_certificate(front), name="certificates"))
                running += [tasks.create_task(work, name=name) for name, work in self._components()]
                await stopping.wait()
                log.info("stopping")
                application.should_exit = True
                for task in running[1:]:
                    task.cancel()
        finally:
            await self._runtime.offload.run(front.stop, _STOP_GRACE_S * 1000)
            if etcd is not None:
                await self._runtime.offload.run(etcd.stop, _STOP_GRACE_S * 1000)
            if self._streaming is not None:
                await self._streaming.close()
            await self._storage.close()

    def _components(self) -> Iterator[tuple[str, Any]]:
        options = self._options
        if options.with_controllers:
            name = "kube-controller-manager"
            client = self._client(f"system:{name}")
            yield "controller-manager", self._leadership.run(client, name, lambda: self._control(client))
        if options.with_scheduler:
            scheduling = self._client("system:kube-scheduler")
            yield "scheduler", self._leadership.run(scheduling, "kube-scheduler", lambda: self._schedule(scheduling))
        if options.sim_nodes:
            yield "sim-nodes", self._simulate_nodes()

    async def _simulate_nodes(self) -> None:
        """Run the simulated nodes; returns only when cancelled."""
        from korch.testing.hollow import HollowNode, Shape

        options, shape = self._options, Shape()
        if options.sim_nodes > _FEW_SIM_NODES:
            renew_s = min(_SIM_RENEW_S, options.node_monitor_grace_period_s * _SIM_RENEW_SHARE)
            shape = Shape(registers_pod_cidr=True, renew_s=renew_s, tick_s=_SIM_TICK_S)
        # Thousands that come before the namespace of their leases would all be refused, and come again.
        while not self._api.is_ready():
            await asyncio.sleep(0.01)
        async with asyncio.TaskGroup() as tasks:
            for index in range(options.sim_nodes):
                name = f"sim-{index + 1}"
                node = HollowNode(self._client(f"system:node:{name}", "system:nodes"), name, self._runtime, shape=shape)
                tasks.create_task(node.run(), name=name)

    async def _control(self, client: Client) -> None:
        """Run all controllers; returns only when cancelled."""
        options = self._options
        config = ControllerConfig(
            root_ca_pem=self._authority.certificate_pem.decode(),
            sign_certificate=self._authority.sign_as_asked,
            cluster_cidr=options.cluster_cidr,
            node_monitor_grace_period_s=options.node_monitor_grace_period_s,
            features=options.features,
        )
        self._controllers = all_controllers(client, self._informers(client), self._runtime, config)
        async with asyncio.TaskGroup() as tasks:
            for controller in self._controllers:
                tasks.create_task(controller.run(), name=controller.name)

    async def _schedule(self, client: Client) -> None:
        """Run the scheduler; returns only when cancelled."""
        self._scheduler = Scheduler(client, self._informers(client), self._runtime, features=self._options.features)
        await self._scheduler.run()

    def _informers(self, client: Client) -> Informers:
        """Return caches: the same for controllers and scheduler, unless each may begin and end to lead by itself."""
        if self._storage.is_shared:
            return Informers(client, self._runtime)
        if self._shared_informers is None:
            self._shared_informers = Informers(client, self._runtime)
        return self._shared_informers

    def _client(self, name: str, *groups: str) -> Client:
        return self._api.client(User(name, groups=(*groups, "system:authenticated")))

    def _write_credentials(self) -> None:
        options = self._options
        admin = self._authority.issue("admin", "kubernetes-admin", organizations=["system:masters"])
        self._authority.issue("kubelet-client", "kube-apiserver-kubelet-client", organizations=["system:masters"])
        write_credentials(
            self._layout, f"https://{options.binds[0]}", self._authority.certificate_pem, admin.certificate, admin.key, self._authority.pin
        )

    def _front_proxy(self) -> FrontProxy:
        """Return the identity for aggregated servers. Its CA signs nothing else: who has its certificate may name any user."""
        authority = CertificateAuthority.open(self._layout.pki / "front-proxy", self._runtime.clock)
        authority.issue("front-proxy-client", "front-proxy-client")
        directory = authority.directory
        return FrontProxy.of(
            str(directory / "front-proxy-client.crt"),
            str(directory / "front-proxy-client.key"),
            proxy_ca_pem=authority.certificate_pem.decode(),
            client_ca_pem=self._authority.certificate_pem.decode(),
        )

    def _front(self) -> native.Front:
        self._renew_serving()
        return native.Front(
            bind=list(self._options.binds),
            upstream=str(self._layout.api_socket),
            certificate_file=self._layout.pki / "apiserver.crt",
            key_file=self._layout.pki / "apiserver.key",
            client_ca_file=self._layout.pki / "ca.crt",
            threads=_FRONT_THREADS,
            source=(self._storage.native, GUARDED, not self._storage.is_shared),
        )

    async def _keep_serving_certificate(self, front: native.Front) -> None:
        """Renew it before it ends; the front door takes new files by itself. Returns only when cancelled."""
        failures = 0
        while True:
            await asyncio.sleep(_CHECK_CERTIFICATES_EVERY_S)
            self._renew_serving()
            before, failures = failures, front.stats()["certificate_reload_failures"]
            if failures > before:
                log.warning("certificate files do not fit each other, the old ones stay in use", directory=str(self._layout.pki))

    def _renew_serving(self) -> None:
        options = self._options
        first_service = str(next(ipaddress.ip_network(options.service_cidr).hosts()))
        hosts = {one.rpartition(":")[0] for one in (*options.binds, options.advertise)} - {"0.0.0.0", "[::]"}
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self._authority.issue(
            "apiserver", "kube-apiserver", hosts=[*names, *sorted(hosts | {"127.0.0.1", first_service} - set(names))], is_server=True
        )

    def _etcd_front(self) -> native.EtcdFront | None:
        address = self._options.etcd_listen
        return etcd_front(self._storage, self._layout, self._runtime.clock, address) if address else None

    def _connect_agents(self) -> None:
        """Let logs, exec and the like be carried to agents. What carries them is loaded when it is first asked for."""
        endpoint = self._api.endpoint

        def carry(name: str) -> Any:
            async def carried(request: Any, info: RequestInfo) -> Any:
                return await getattr(self._carrier(), name)(request, info)

            return carried

        def upgraded(name: str) -> Any:
            async def carried(*given: Any) -> None:
                await getattr(self._carrier(), name)(*given)

            return carried

        endpoint.connectors["pods", "log"] = carry("log")
        endpoint.socket_connectors["pods", "log"] = carry("log_socket")
        for subresource, name in (("exec", "command_socket"), ("attach", "command_socket"), ("portforward", "port_forward_socket")):
            endpoint.socket_connectors["pods", subresource] = carry(name)
        endpoint.upgrade_connectors["pods", "exec"] = upgraded("command_upgrade")
        endpoint.upgrade_connectors["pods", "attach"] = upgraded("command_upgrade")
        endpoint.upgrade_connectors["pods", "portforward"] = upgraded("port_forward_upgrade")
        for plural in ("pods", "services", "nodes"):
            endpoint.connectors[plural, "proxy"] = carry("proxy")

    def _carrier(self) -> Streaming:
        if self._streaming is None:
            from korch.apiserver.streaming import AgentCredentials, Streaming

            pki = self._layout.pki
            credentials = AgentCredentials(str(pki / "kubelet-client.crt"), str(pki / "kubelet-client.key"), str(pki / "ca.crt"))
            self._streaming = Streaming(self._object, credentials)
        return self._streaming

    def _object(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """Return an object of the core group. Raises NotFound."""
        resource = self._catalogue.get("", "v1", plural)
        record = self._storage.get(resource.key(namespace, name)) if resource is not None else None
        if record is None:
            raise NotFound("", plural, name)
        return orjson.loads(record.value)

    def _bearer_tokens(self) -> BearerTokens:
        audiences, clock = self._tokens.audiences, self._runtime.clock
        bootstrap = BootstrapTokens(self._bootstrap_secret, clock, audiences=audiences)
        remote = self._options.access.authentication.sources(clock, audiences)
        return BearerTokens([ServiceAccountSource(self._tokens), bootstrap], audiences=audiences, remote=remote)

    def _bootstrap_secret(self, name: str) -> dict[str, Any] | None:
        try:
            return self._object("secrets", NAMESPACE, name)
        except NotFound:
            return None

    def _uid_of(self, plural: str, namespace: str, name: str) -> str:
        try:
            return str(self._object(plural, namespace, name)["metadata"]["uid"])
        except NotFound:
            return ""

    def _add_component_statuses(self) -> None:
        """Show what runs in this process under `kubectl get componentstatuses`."""

        def controllers() -> str:
            waiting = [one.name for one in self._controllers if not one.is_synced]
            return "" if self._controllers and not waiting else f"not synced: {', '.join(waiting) or 'not started yet'}"

        def scheduler() -> str:
            return "" if self._scheduler is not None and self._scheduler.is_synced else "not synced"

        if self._options.with_controllers:
            self._api.add_component("controller-manager", controllers)
        if self._options.with_scheduler:
            self._api.add_component("scheduler", scheduler)

    async def _show_components(self, _request: Request) -> Response:
        components: dict[str, dict[str, Any]] = {}
        standing_by = {"ready": True, "message": "standing by: another server may lead"}
        if self._options.with_controllers:
            if self._leadership.is_standing_by("kube-controller-manager"):
                components["controller-manager"] = standing_by
            elif not self._controllers:
                components["controller-manager"] = {"ready": False, "message": "not started yet"}
            else:
                components = {one.name: {"ready": one.is_synced} for one in self._controllers}
        if self._options.with_scheduler:
            is_synced = self._scheduler is not None and self._scheduler.is_synced
            components["scheduler"] = standing_by if self._leadership.is_standing_by("kube-scheduler") else {"ready": is_synced}
        return Response(orjson.dumps(components), media_type="application/json")

    @staticmethod
    def _show(document: dict[str, Any]) -> Any:
        async def show(_request: Request) -> Response:
            return Response(orjson.dumps(document), media_type="application/json")

        return show


class _Application(uvicorn.Server):
    """uvicorn on a Unix socket, without signal handlers of its own. It gets what does not come through the inbox: upgrades, and
    requests whose bodies are long or slow."""

    def __init__(self, app: Front, socket_path: str) -> None:
        http: Any = HttpToolsProtocol

        def connection(*, config: Any, server_state: Any, app_state: Any, **more: Any) -> asyncio.Protocol:
            return Handover(lambda: http(config=config, server_state=server_state, app_state=app_state, **more), PROTOCOL, app.upgrade)

        super().__init__(
            uvicorn.Config(
                app,
                uds=socket_path,
                http=connection,  # type: ignore[arg-type]
                ws="wsproto",
                lifespan="off",
                access_log=False,
                log_level="warning",
                timeout_graceful_shutdown=_STOP_GRACE_S,
                timeout_keep_alive=75,
                ws_max_size=1 << 25,
                proxy_headers=False,
                server_header=False,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
