"""The one list of controllers forgets none."""

from __future__ import annotations

import importlib
import pkgutil

from tests.unit.controllers.conftest import World

import korch.controllers
from korch.api.features import Features
from korch.client.controller import Controller
from korch.controllers import ControllerConfig, all_controllers


async def test_every_controller_file_is_in_the_list(world: World) -> None:
    config = ControllerConfig(features=Features(generic_workload=True))
    listed = {type(one) for one in all_controllers(world.client, world.informers, world.runtime, config)}
    files = [one.name for one in pkgutil.iter_modules(korch.controllers.__path__) if not one.ispkg and one.name != "config"]
    for name in files:
        module = importlib.import_module(f"korch.controllers.{name}")
        defined = {
            one
            for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, Controller) and one.__module__ == module.__name__
        }
        assert defined and defined <= listed, f"{name}.py holds a controller that all_controllers does not make"
        assert module.__doc__ and "Watches" in module.__doc__, f"{name}.py does not say what it watches"


async def test_controllers_have_names_of_their_own(world: World) -> None:
    made = all_controllers(world.client, world.informers, world.runtime)
    assert len({one.name for one in made}) == len(made)
