"""The harness's own command, with runs of Strawberry as a model.

    python -m strawberry_lm_eval run --model strawberry --model_args run=runs/air --tasks arc_easy

lm-eval 0.4.13 has a fixed table of models and finds none by entry point, so `lm_eval` itself does
not know `strawberry`.
"""

from __future__ import annotations


def main() -> None:
    """Register the model, and run `lm_eval` with this command's arguments."""
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if "strawberry" not in model_registry:
        model_registry.register("strawberry", target="strawberry_lm_eval.model:StrawberryLM")
    cli_evaluate()


if __name__ == "__main__":
    main()
