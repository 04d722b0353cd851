"""`sluicegate schema`: JSON Schema (draft 2020-12) of the YAML, for completion in editors.

Made from the models. An editor sees the text before variables are replaced, so wherever a scalar
may stand a text with `${…}` may too; and a key without a value is null to it, which is left out.
"""

import json
from typing import Any

from proxy.policy.models.files import GatewayFile, PolicyFile
from proxy.policy.models.leaves import LEAF, Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ABOUT = ("default", "description")
_VARIABLE = "#/$defs/Variable"


def schema(which: str) -> str:
    """The schema of `gateway` or `policies` files, as JSON text."""
    return json.dumps(schema_document(which), indent=2)


def schema_document(which: str) -> dict[str, Any]:
    """The schema as a document."""
    models: dict[str, type[Section]] = {"gateway": GatewayFile, "policies": PolicyFile}
    made = _finish(models[which].model_json_schema())
    kind = "gateway" if which == "gateway" else "policy"
    made.setdefault("$defs", {})["Variable"] = {
        "description": "A text with environment variables: ${NAME} or ${NAME:-default}.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    }
    return {"$schema": DIALECT, "title": f"Sluicegate {kind} file", **made}


def _finish(node: Any) -> Any:
    """Pydantic's schema with our leaves opened for variables and for nothing at all."""
    if isinstance(node, list):
        return [_finish(item) for item in node]
    if not isinstance(node, dict):
        return node
    done = {key: _finish(value) for key, value in node.items() if key not in (LEAF, "title")}
    if node.get(LEAF):
        return _choose(done, {"$ref": _VARIABLE})
    if isinstance(node.get("properties"), dict):
        required = node.get("required", ())
        for name, value in done["properties"].items():
            if name not in required:
                done["properties"][name] = _choose(value, {"type": "null"})
    if "patternProperties" in node:
        # A map whose keys follow a pattern: pydantic says what such a key has, not that all do.
        done["additionalProperties"] = False
        done.pop("propertyNames", None)
    if "anyOf" in done:
        return _choose(done)
    return done


def _choose(node: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """The node, or one of `more`; choices within choices are laid flat."""
    about = {key: node[key] for key in _ABOUT if node.get(key) is not None}
    shape = {key: value for key, value in node.items() if key not in _ABOUT}
    choices: list[dict[str, Any]] = []
    for choice in (shape, *more):
        for one in choice["anyOf"] if set(choice) == {"anyOf"} else [choice]:
            for inner in one["anyOf"] if set(one) == {"anyOf"} else [one]:
                if inner not in choices:
                    choices.append(inner)
    return {**about, "anyOf": choices}
