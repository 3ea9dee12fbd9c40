"""What the tests of `sbr apply` share."""

import pytest
from mapped_brain import MappedBrain, make_mapped_brain


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> MappedBrain:
    """A finished brain whose every mapping is known, made anew for each file of tests."""
    return make_mapped_brain(tmp_path_factory.mktemp("mapped") / "results" / "b")
