"""One brain for all tests of the room; none of them writes to it."""

import pytest
from mapped_brain import MappedBrain, make_mapped_brain


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> MappedBrain:
    """A brain whose spaces are known, see `mapped_brain`."""
    return make_mapped_brain(tmp_path_factory.mktemp("mapped") / "results" / "b")
