"""Fixtures for all tests: shared data beside the checkout, and a guard against leaked threads."""

import threading
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """Path of a file of real or reference data that is kept beside the checkout, or a skip."""

    def path_of(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is kept beside the checkout, in ../shared/data, and is not there")
        return path

    return path_of


@pytest.fixture(autouse=True)
def no_thread_survives():
    """Fail a test that leaves one of our threads behind."""
    yield
    survivors = [t.name for t in threading.enumerate() if t.name.startswith("tomogan-")]
    assert not survivors, f"threads left behind: {survivors}; close() what started them"
