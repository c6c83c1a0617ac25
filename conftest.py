"""The options that tests and benchmarks share, registered before either is collected."""

from __future__ import annotations

import pytest

from benchmarks.options import add_shared_options


def pytest_addoption(parser: pytest.Parser) -> None:
    add_shared_options(parser)
