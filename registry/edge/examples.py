"""Examples in the OpenAPI document: for each operation a request and its response, from files `examples.json` beside the API modules.

tests/registry/test_examples.py sends the requests to the real service; with RECORD_EXAMPLES=1 it writes the responses.
"""

from pathlib import Path
from typing import Any

import msgspec

type Operation = dict[str, Any]

JSON = "application/json"


class OperationExample(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A request of an operation and its response. `path`, `query` and `header` are values of parameters by name."""

    status: int = 200
    path: dict[str, Any] = {}
    query: dict[str, Any] = {}
    header: dict[str, Any] = {}
    body: Any = msgspec.UNSET
    answer: Any = msgspec.UNSET

    @property
    def parameters(self) -> dict[tuple[str, str], Any]:
        """Values by place and name, as OpenAPI tells parameters apart."""
        places = {"path": self.path, "query": self.query, "header": self.header}
        return {(place, name): value for place, values in places.items() for name, value in values.items()}


def read(path: Path) -> dict[str, OperationExample]:
    """The examples of a file by "METHOD /path". Raises msgspec.ValidationError for fields that an example does not have."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, OperationExample])


def shown(operation: Operation, example: OperationExample) -> Operation:
    """A copy of the operation with the example in its parameters, its request body and its response."""
    found = {**operation, "parameters": [_parameter(one, example) for one in operation.get("parameters", [])]}
    if example.body is not msgspec.UNSET:
        found["requestBody"] = {
            **operation["requestBody"],
            "content": _with(operation["requestBody"]["content"], example.body),
        }
    if example.answer is not msgspec.UNSET:
        found["responses"] = {
            status: {**answer, "content": _with(answer.get("content") or {JSON: {}}, example.answer)}
            if str(status) == str(example.status)
            else answer
            for status, answer in operation["responses"].items()
        }
    return found


def _parameter(parameter: dict[str, Any], example: OperationExample) -> dict[str, Any]:
    name = (parameter["in"], parameter["name"])
    return {**parameter, "example": example.parameters[name]} if name in example.parameters else parameter


def _with(content: dict[str, Any], value: Any) -> dict[str, Any]:
    """The content with the example in its first kind; others, such as CSV, have none."""
    first = next(iter(content))
    return {kind: {**media, "example": value} if kind == first else media for kind, media in content.items()}


def without_default(operation: Operation) -> Operation:
    """A copy without the 200 that ninja adds to every operation, where another success is described."""
    answers = operation["responses"]
    described = [
        status for status, answer in answers.items() if str(status)[0] == "2" and answer != {"description": "OK"}
    ]
    kept = {s: a for s, a in answers.items() if not described or str(s)[0] != "2" or s in described}
    return {**operation, "responses": kept}
