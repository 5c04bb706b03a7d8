"""A PostgreSQL for the tests that need one, where it is installed."""

import pytest
from faults import postgres, postgres_programs


@pytest.fixture(scope="session")
def postgres_url():
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres() as url:
        yield url
