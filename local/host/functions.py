"""Read the functions that function_app.py declares, as the Python worker indexes them."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.functions as func

from local.host.settings import CannotStart, is_disabled

SUPPORTED = ("httpTrigger", "queueTrigger", "timerTrigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    name: str
    kind: str
    argument: str
    trigger: Mapping[str, Any]
    call: Callable[..., Any]
    wants_context: bool

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.call)


def load_functions(folder: Path) -> list[Function]:
    """Import function_app.py from the folder. Return its functions by name, as Azure maps routes.

    Raises CannotStart for a function that this host cannot run.
    """
    if not (folder / "function_app.py").is_file():
        raise CannotStart(f"no function_app.py in {folder}")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    module = importlib.import_module("function_app")
    # https://github.com/Azure/azure-functions-python-worker loader.py index_function_app
    apps = {id(v): v for v in vars(module).values() if isinstance(v, func.FunctionRegister)}
    if len(apps) != 1:
        raise CannotStart(f"function_app.py: expected one FunctionApp, found {len(apps)}")
    (app,) = apps.values()
    declared = [_read_function(function) for function in app.get_functions()]
    # https://github.com/Azure/azure-functions-host/issues/9876 -- no precedence but the name
    return sorted((f for f in declared if not is_disabled(f.name, os.environ)), key=_get_sort_key)


def _get_sort_key(function: Function) -> str:
    return function.name.lower()


def _read_function(declared: Any) -> Function:
    name, trigger = declared.get_function_name(), declared.get_trigger().get_dict_repr()
    kind = str(trigger["type"])
    if kind not in SUPPORTED:
        raise CannotStart(f"{name}: {kind} is not supported by this host, only {SUPPORTED}")
    others = [b for b in declared.get_bindings() if b is not declared.get_trigger()]
    if extra := [b.type for b in others if not (kind == "httpTrigger" and b.type == "http")]:
        raise CannotStart(f"{name}: binding {extra[0]} is not supported by this host")
    if declared.get_setting("retry_policy") is not None:
        raise CannotStart(f"{name}: retry policies are not supported by this host")
    call, argument = declared.get_user_function(), str(trigger["name"])
    parameters = set(inspect.signature(call).parameters)
    if parameters - {"context"} != {argument}:
        raise CannotStart(f"{name}: expected the parameter {argument}, found {sorted(parameters)}")
    return Function(
        name=name,
        kind=kind,
        argument=argument,
        trigger=trigger,
        call=call,
        wants_context="context" in parameters,
    )
