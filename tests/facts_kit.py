"""What an object says of itself, whichever way its class is made."""

from typing import Any

import pytest

from proxy.resources import compiled

interpreted_only = pytest.mark.skipif(
    compiled(), reason="what is counted are the interpreter's own calls, which compiled code is not"
)


def facts(thing: Any) -> dict[str, Any]:
    """Its attributes by name: of slots, of a `__dict__`, or of a compiled class, which has
    neither."""
    values = {name: getattr(thing, name) for name in dir(thing) if name[:2] != "__"}
    return {name: value for name, value in values.items() if not callable(value)}
