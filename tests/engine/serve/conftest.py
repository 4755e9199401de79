"""One service for the tests that do not change how it is set."""

from collections.abc import Iterator

import pytest

from dragnoise.engine.serve import Client
from dragnoise.engine.serve.client import RemoteSession
from services import FACE, Running, service


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with service(sessions=200) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.client() as client:
        yield client


@pytest.fixture
def session(client: Client) -> Iterator[RemoteSession]:
    session = client.open(FACE, prompt="a face")
    yield session
    session.cancel()
    session.delete()
