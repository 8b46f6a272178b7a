"""The export document says all that a session tells its model."""

from dataclasses import fields

from app.copies.document import ExportedOptions
from app.sessions import Options


def test_document_has_every_option_of_a_session() -> None:
    assert list(ExportedOptions.model_fields) == [option.name for option in fields(Options)]
