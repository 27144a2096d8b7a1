"""Every operator with arguments that exercise it: one module a mechanism, each with ``EXAMPLES``."""

import importlib
import pkgutil

EXAMPLES = [
    example
    for module in pkgutil.iter_modules(__path__)
    if module.name != "example"
    for example in importlib.import_module(f"examples.{module.name}").EXAMPLES
]
