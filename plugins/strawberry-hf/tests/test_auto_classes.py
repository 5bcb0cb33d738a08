"""Any recipe's model in transformers: logits, cache, generation, training, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_runs import MakeLoaded, MakeRun, random_ids
from strawberry_hf import export_run, import_checkpoint

from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation import LoadedRun, load_run

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STACK = "model.stack=[{{repeat: 2, stack: [{{attention: {}, ffn: swiglu}}]}}]"
ARCHITECTURES: dict[str, tuple[str, list[str]]] = {
    "llama": ("llama", []),
    "moe": ("moe", []),
    "mla": ("llama", [STACK.format("mla")]),
    "linear": ("llama", [STACK.format("linear"), "model.positional=none"]),
    "air_full": ("air_full", []),
    "mor_token_choice": ("mor_token_choice", []),
}
SOME = [
    name if name in ("moe", "air_full") else pytest.param(name, marks=pytest.mark.slow)
    for name in ARCHITECTURES
]


def exported(run: LoadedRun | Path, folder: Path) -> Any:
    """The model that the Auto classes load from the folder of a run."""
    export_run(run, folder, form="strawberry")
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", SOME)
def test_logits_are_ours_bit_for_bit(name: str, loaded: MakeLoaded, tmp_path: Path) -> None:
    """Whole, from a cache, and after `save_pretrained`, without code in the folder."""
    recipe, overrides = ARCHITECTURES[name]
    run = loaded(recipe, *overrides)
    model = exported(run, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.py"))
    ids = random_ids()
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(logits, run.model(ids))
        first = model(ids[:, :7], use_cache=True)
        cache = first[next(key for key in ("cache", "past_key_values") if key in first)]
        rest = model(ids[:, 7:], past_key_values=cache, use_cache=True).logits
        assert torch.allclose(torch.cat([first.logits, rest], 1), logits, atol=1e-4)
        model.save_pretrained(tmp_path / "again")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
        assert torch.equal(again(ids).logits, logits)


@pytest.mark.parametrize("name", [pytest.param("linear", marks=pytest.mark.slow), "air_full"])
def test_generation_is_ours(name: str, loaded: MakeLoaded, tmp_path: Path) -> None:
    """Greedy text, with and without a cache, and of rows that are padded on the left."""
    recipe, overrides = ARCHITECTURES[name]
    run = loaded(recipe, *overrides)
    model = exported(run, tmp_path / "out")
    model.generation_config.eos_token_id = None
    ids = random_ids()[:, :9]
    short = torch.cat([torch.zeros(1, 4, dtype=torch.int64), ids[:1, :5]], 1)
    batch, mask = torch.cat([ids, short]), torch.ones(3, 9, dtype=torch.int64)
    mask[2, :4] = 0

    def greedy(start: torch.Tensor, **how: Any) -> torch.Tensor:
        settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **how}
        return model.generate(start, **settings)[:, start.shape[1] :]

    expected = _argmax(run, ids, 6)
    assert torch.equal(greedy(ids), expected)
    assert torch.equal(greedy(ids, use_cache=False), expected)
    padded = greedy(batch, attention_mask=mask)
    assert torch.equal(padded[:2], expected)
    assert torch.equal(padded[2:], _argmax(run, ids[:1, :5], 6))


def _argmax(run: LoadedRun, ids: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count): the likeliest ids one after the other, each from a pass over all before it."""
    length = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, run.model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, length:]


def test_beam_search_reorders_the_cache(loaded: MakeLoaded, tmp_path: Path) -> None:
    """Beams with a cache are those without one, also of rows that are padded."""
    model = exported(loaded("air_full"), tmp_path / "out")
    model.generation_config.eos_token_id = None
    ids, mask = random_ids()[:, :6], torch.ones(2, 6, dtype=torch.int64)
    mask[1, :2] = 0
    for attention in (torch.ones_like(mask), mask):
        with_cache, without = (
            model.generate(
                ids,
                attention_mask=attention,
                num_beams=3,
                max_new_tokens=5,
                do_sample=False,
                pad_token_id=0,
                use_cache=used,
            )
            for used in (True, False)
        )
        assert torch.equal(with_cache, without)


@pytest.mark.slow
def test_the_trainer_trains_it(loaded: MakeLoaded, tmp_path: Path) -> None:
    """Its loss is the recipe's with auxiliary losses; routers' biases move after each step."""
    pytest.importorskip("accelerate")
    moe = "model.stack.*.ffn={use: moe, bias_rate: 0.1}"
    run = loaded("moe", moe, "model.dropout=0")
    model = exported(run, tmp_path / "out")
    ids = random_ids()
    targets = torch.full_like(ids, -1)
    targets[:, :-1] = ids[:, 1:]
    model.train(), run.model.train()
    assert torch.equal(model(ids, labels=ids).loss, run.model.loss(ids, targets).total)
    model.eval(), run.model.eval()
    nats = run.model.measure(ids, targets).rows.sum() / (targets >= 0).sum()
    assert model(ids, labels=ids).loss == pytest.approx(float(nats), rel=1e-6)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"), max_steps=3, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, learning_rate=1e-2, logging_steps=1,
    )  # fmt: skip
    rows = [{"input_ids": ids[n % 2], "labels": ids[n % 2]} for n in range(12)]
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
    trainer.save_model(str(tmp_path / "trained"))
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert any(name.endswith(".bias") and "ffn" in name for name in changed), changed
    path = import_checkpoint_of(tmp_path / "trained", tmp_path)
    with torch.no_grad():
        assert torch.equal(load_run(path, device="cpu").model(ids), model.eval()(ids).logits)


def import_checkpoint_of(folder: Path, tmp_path: Path) -> Path:
    """A run of a folder that the Trainer wrote, to which a tokenizer is added."""
    from strawberry.data import byte_tokenizer

    byte_tokenizer(["<|eot|>"]).save(folder / "tokenizer.json")
    (tmp_path / "mine.txt").write_text("a strawberry is red. " * 200)
    data = f"data={{use: text, path: {tmp_path / 'mine.txt'}}}"
    return import_checkpoint(folder, tmp_path / "back", overrides=[data]).run


def test_a_pipeline_writes_text(make_run: MakeRun, tmp_path: Path) -> None:
    """`pipeline` loads model and tokenizer of the folder, and pads its batches."""
    run = make_run("air_full")
    export_run(run, tmp_path / "out")
    write = transformers.pipeline("text-generation", model=str(tmp_path / "out"), device="cpu")
    write.tokenizer.pad_token_id, write.tokenizer.padding_side = 256, "left"
    texts = write(["a straw", "b"], max_new_tokens=4, do_sample=False, batch_size=2)
    assert [one[0]["generated_text"][:1] for one in texts] == ["a", "b"]


def test_the_card_says_what_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    """Recipe, data, versions and how to load it; the folder goes back to the same run."""
    run = make_run("air_full")
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("import strawberry_hf", "validation tokens", "strawberry-lab", "expert_abundance"):
        assert part in card
    text = load_run(run).recipe.data.fields["path"]
    data = f"data={{use: text, path: {text}}}"
    back = import_checkpoint(tmp_path / "out", tmp_path / "back", overrides=[data]).run
    with torch.no_grad():
        ids = random_ids()
        assert torch.equal(load_run(back).model(ids), load_run(run).model(ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, ids: m(inputs_embeds=ids.float()), "input_ids are needed"),
        (lambda m, ids: m(ids, attention_mask=_mask(ids, 3)), "padding in the middle"),
        (lambda m, ids: m.resize_token_embeddings(9), "the number of ids is the recipe's"),
        (
            lambda m, ids: m.generate(ids, max_new_tokens=2, cache_implementation="static"),
            "a cache of its own",
        ),
    ],
)
def test_what_it_can_t_do_is_told(
    change: Any, message: str, loaded: MakeLoaded, tmp_path: Path
) -> None:
    """A use that a recipe's model does not support is an error that says so."""
    model = exported(loaded("llama"), tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        change(model, random_ids())


def _mask(ids: torch.Tensor, hole: int) -> torch.Tensor:
    mask = torch.ones_like(ids)
    mask[0, hole] = 0
    return mask


def test_a_model_that_looks_ahead_does_not_generate(loaded: MakeLoaded, tmp_path: Path) -> None:
    """Its logits are ours, but text can't be generated token by token."""
    moe = "model.stack.*.ffn={use: moe, routing: expert}"
    model = exported(loaded("llama", moe), tmp_path / "out")
    with pytest.raises(ValueError, match="not causal"):
        model.generate(random_ids(), max_new_tokens=2)


def test_a_missing_plugin_is_named(loaded: MakeLoaded, tmp_path: Path) -> None:
    """A component that isn't installed is told with the distribution that the model needs."""
    exported(loaded("llama"), tmp_path / "out")
    file = tmp_path / "out" / "config.json"
    config = json.loads(file.read_text())
    config["recipe"]["model"]["norm"] = {"use": "elsewhere/odd"}
    config["requires"] = {"strawberry-elsewhere": "1.2"}
    file.write_text(json.dumps(config))
    with pytest.raises(StrawberryError, match=r"elsewhere/odd[\s\S]*strawberry-elsewhere 1.2"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_native_is_asked_for(loaded: MakeLoaded, tmp_path: Path) -> None:
    """`native` refuses a recipe without a counterpart, where `auto` takes the other form."""
    with pytest.raises(RecipeError, match="no counterpart"):
        export_run(loaded("air_full"), tmp_path / "out", form="native")
    assert export_run(loaded("air_full"), tmp_path / "out").model_type == "strawberry"
