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
    made = models[which].model_json_schema()
    document = {
        "$schema": DIALECT,
        "title": f"Sluicegate {'gateway' if which == 'gateway' else 'policy'} file",
        **{key: _finish(value) for key, value in made.items() if key != "title"},
    }
    document.setdefault("$defs", {})["Variable"] = {
        "description": "A text with environment variables: ${NAME} or ${NAME:-default}.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    }
    return document


def _finish(node: Any) -> Any:
    if isinstance(node, list):
        return [_finish(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get(LEAF):
        return _leaf(node)
    done = {key: _finish(value) for key, value in node.items() if key != "propertyNames"}
    if "propertyNames" in node:
        done["propertyNames"] = {k: v for k, v in node["propertyNames"].items() if k != LEAF}
    if isinstance(node.get("properties"), dict):
        required = node.get("required", [])
        done["properties"] = {
            name: value if name in required else _or_null(value)
            for name, value in done["properties"].items()
        }
        done.pop("title", None)
    if done.get("default", 0) is None:
        del done["default"]
    return done


def _leaf(node: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: node[key] for key in _ABOUT if key in node}
    shape = {key: value for key, value in node.items() if key not in (LEAF, "title", *about)}
    choices = shape["anyOf"] if set(shape) == {"anyOf"} else [shape]
    return {**about, "anyOf": [*choices, {"$ref": _VARIABLE}]}


def _or_null(node: dict[str, Any]) -> dict[str, Any]:
    """Nothing behind the colon: left out."""
    null = {"type": "null"}
    about: dict[str, Any] = {key: node[key] for key in _ABOUT if key in node}
    shape = {key: value for key, value in node.items() if key not in ("title", *about)}
    if set(shape) == {"anyOf"}:
        choices = shape["anyOf"] if null in shape["anyOf"] else [*shape["anyOf"], null]
        return {**about, "anyOf": choices}
    return {**about, "anyOf": [shape, null]}
