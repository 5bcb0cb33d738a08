from strawberry.components.schedule.constant import Constant
from tests.components.schedule.sites import site


def test_is_the_peak_at_every_step() -> None:
    """With decay disabled there is neither warm-up nor cooldown, however long the run."""
    schedule = Constant(site())
    assert {schedule(s) for s in (0, 1, 50, 100, 1000)} == {3e-3}
