"""STREAMLSTM_TEST_BACKEND=cuda runs the tests of this folder on another backend: `make test-cuda`."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from streamlstm.engine import prediction
from streamlstm.engine.backend import Backend, make_backend


@pytest.fixture(scope="session", autouse=True)
def backend_under_test() -> Iterator[None]:
    name: Any = os.environ.get("STREAMLSTM_TEST_BACKEND", "cpu")

    def make(_: str, *rest: Any) -> Backend:
        return make_backend(name, *rest)

    with pytest.MonkeyPatch.context() as patch:
        if name != "cpu":
            patch.setattr(prediction, "make_backend", make)
        yield
