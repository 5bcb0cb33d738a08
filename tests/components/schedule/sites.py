"""What the tests of schedules share: a site with a step count that makes mistakes visible."""

from strawberry.contracts import ScheduleSite


def site(**fields: float) -> ScheduleSite:
    values = {
        "learning_rate": 3e-3,
        "min_lr": 3e-4,
        "warmup_iters": 10,
        "lr_decay_iters": 100,
        "cooldown_frac": 0.4,
        "max_iters": 120,
        **fields,
    }
    return ScheduleSite(**values)  # type: ignore[arg-type]
