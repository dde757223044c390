"""What a model says of itself, and what is no such thing."""

import json

import pytest
from generators import CARD
from pydantic import ValidationError

from tomogan_bluesky.errors import ModelError
from tomogan_bluesky.models.card import ModelCard, network_of, read_card


def test_a_card_is_read_as_it_was_written():
    assert read_card(CARD.model_dump_json(indent=1)) == CARD


def test_a_card_is_strict_and_frozen():
    with pytest.raises(ValidationError):
        ModelCard(**(CARD.model_dump() | {"colour": "red"}))
    with pytest.raises(ValidationError):
        CARD.name = "other"


@pytest.mark.parametrize("text", ["", "no JSON", "3", "[]", "{}", b"\xff"])
def test_what_is_no_card(text):
    with pytest.raises(ModelError, match="expected a model card inside the file"):
        read_card(text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format_version": 99, "package_version": "7.0"}, r"version 1, got 99.*\(7\.0\)"),
        ({"units": "1/cm"}, "not valid"),
        ({"outputs": ["denoised", "uncertainty"]}, "with a calibration"),
    ],
)
def test_a_card_that_this_version_cannot_use(changes, told):
    with pytest.raises(ModelError, match=told):
        read_card(json.dumps(CARD.model_dump(mode="json") | changes))


def test_a_network_that_this_version_does_not_know():
    card = CARD.model_copy(update={"network": "unet9(base=4)"})
    with pytest.raises(ModelError, match=f"model {card.name!r}: .*unet9"):
        network_of(card)
