"""Our plugins from the source tree, whether it is installed or not."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "plugins"

if "mqttcore_plugins" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "mqttcore_plugins", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["mqttcore_plugins"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["mqttcore_plugins"])
