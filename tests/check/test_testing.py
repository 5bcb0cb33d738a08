"""The pytest plugin, used as an author would."""

from pathlib import Path

import pytest

from strawberry.check import checks_for

pytest_plugins = ["pytester"]


@pytest.mark.component("ffn/mlp", activation="gelu")
@pytest.mark.checks(only=["shape", "gradients"])
def test_here_too(component_check) -> None:
    """The plugin is at work in this very suite, with fields."""
    component_check()


def test_one_test_for_each_check(pytester: pytest.Pytester) -> None:
    """Without `checks`, and with what it leaves out."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.component("attention/mha")
        def test_all(component_check):
            component_check()

        @pytest.mark.component("attention/mha")
        @pytest.mark.checks(leave_out=["compile", "speed"])
        def test_most(component_check):
            component_check()
        """
    )
    items, _ = pytester.inline_genitems("-p", "no:xdist")
    every = list(checks_for("attention"))
    most = [check for check in every if check not in ("compile", "speed")]
    expected = [("all", check) for check in every] + [("most", check) for check in most]
    assert [item.name for item in items] == [f"test_{t}[attention/mha-{c}]" for t, c in expected]


def test_a_check_ends_as_it_does(pytester: pytest.Pytester) -> None:
    """Passing, failing and skipped checks are so in pytest; a failure is the finding alone."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.component("attention/mha")
        @pytest.mark.checks(only=["shape", "past", "recurrence", "counted"])
        def test_sound(component_check):
            component_check()

        @pytest.mark.component("attention/mha", window=1)
        @pytest.mark.checks(only=["past"])
        def test_unsound(component_check):
            component_check()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-rA", "-W", "error")
    result.assert_outcomes(passed=3, skipped=1, failed=1)
    finding = "*no earlier token affects a later output*"
    result.stdout.fnmatch_lines(["*test_unsound*past*", finding])


def test_a_recipe_is_checked_too(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """`@pytest.mark.recipe` takes the model of a recipe."""
    recipe = Path(__file__).parents[2] / "recipes" / "gpt2.yaml"
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.recipe({str(recipe)!r})
        @pytest.mark.checks(only=["shape", "cache", "past"])
        def test_sound(component_check):
            component_check()
        """
    )
    pytester.runpytest_inprocess("-p", "no:xdist").assert_outcomes(passed=3)


def test_a_forgotten_mark_is_told(pytester: pytest.Pytester) -> None:
    """Without a mark there is nothing to check, which is an error and not a pass."""
    pytester.makepyfile("def test_nothing(component_check): component_check()")
    result = pytester.runpytest_inprocess("-p", "no:xdist")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*component_check needs @pytest.mark.component*"])


def test_pytest_elsewhere_imports_no_torch(pytester: pytest.Pytester) -> None:
    """A suite that does not use the kit pays nothing for its being installed."""
    pytester.makepyfile(
        """
        import sys

        def test_light():
            assert "torch" not in sys.modules
            assert "strawberry.check" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=1)
