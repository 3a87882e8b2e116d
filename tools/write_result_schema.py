"""Writes the JSON Schema of result.json: to docs/, where it is published, and to node/, which is shipped.

tools/write_result_schema.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from node.result_document import SCHEMA_VERSION, ResultDocument

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "docs" / "result.schema.json", ROOT / "node" / "result.schema.json")
_SECTION = re.compile(r"\n\n(?=\w+\n-{3,}\n)")  # before a heading of numpydoc's


class WrittenSchema(GenerateJsonSchema):
    """Without titles that repeat the key, and without defaults: every key is written."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, _: object) -> bool:
        return False


def without_sections(schema: Any) -> Any:
    """The schema with descriptions that end before a docstring's first section."""
    if isinstance(schema, list):
        return [without_sections(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _SECTION.split(value)[0]
        if key == "description" and isinstance(value, str)
        else without_sections(value)
        for key, value in schema.items()
    }


def schema_text() -> str:
    """JSON Schema (2020-12) of what this version writes."""
    schema = ResultDocument.model_json_schema(
        mode="serialization", schema_generator=WrittenSchema, union_format="primitive_type_array"
    )
    head = {"$schema": WrittenSchema.schema_dialect, "$id": FILES[0].name}
    title = {"title": f"Osteonode result.json {SCHEMA_VERSION}"}
    return json.dumps(head | title | without_sections(schema) | title, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for file in FILES:
        file.write_text(schema_text(), "utf-8")


if __name__ == "__main__":
    main()
