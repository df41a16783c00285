"""`korch server`: store, API, front door, and (unless they run elsewhere) controllers, scheduler and simulated nodes in one process."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
import uvicorn
from starlette.responses import Response
from starlette.routing import Route

from korch._core import native
from korch.apiserver.authn.authenticator import ClusterAuthenticator
from korch.apiserver.authn.service_account_tokens import DEFAULT_ISSUER, ServiceAccountTokens
from korch.apiserver.authz.authenticated import AuthenticatedOnly
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.join import join_routes
from korch.apiserver.server import ApiServer, ServerConfig
from korch.apiserver.streaming import AgentCredentials, Streaming
from korch.client.controller import Controller
from korch.client.informer import Informers
from korch.cmd.layout import Layout
from korch.cmd.supervisor import write_credentials
from korch.controllers import ControllerConfig, all_controllers
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.runtime.log import configure, get_logger
from korch.scheduler.scheduler import Scheduler
from korch.storage import Storage

log = get_logger("server")
