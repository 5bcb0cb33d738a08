"""Embeddings against literal loops over tokens, whole and in pieces."""

import pytest
import torch

import strawberry
from strawberry.contracts import hashed
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import patch, recipe_from
from tests.support import tiny

BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "swiglu", "n_ffn": 32}}
IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))


def model_of(embedding, **model):
    """A model with perturbed parameters, so that nothing starts at zero."""
    built = strawberry.build(tiny(BLOCK, embedding=embedding, **model)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in built.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return built.eval()


def embedded(model, ids, cuts=()):
    """The embeddings (B, T, C): at once, or with a cache in pieces."""
    if not cuts:
        return model.embed(ids, model.use(ids))
    cache, pieces = model.new_cache(len(ids), ids.shape[1]), []
    for start, end in zip((0, *cuts), (*cuts, ids.shape[1]), strict=True):
        piece = ids[:, start:end]
        pieces.append(model.embed(piece, model.use(piece, cache)))
        cache.offset = end
    return torch.cat(pieces, 1)


CUTS = [(), (1, 2, 7), (4,)]


@pytest.mark.parametrize("cuts", CUTS)
def test_hashed_ngrams(cuts):
    """The row of each order is added where the tokens before are there, and none elsewhere."""
    model = model_of({"use": "ngram", "orders": [2, 3], "rows": 50})
    e = model.embedding
    expected = e.base.weight[IDS].clone()
    for b in range(2):
        for t in range(9):
            for table, order in zip(e.tables, (2, 3), strict=True):
                if t >= order - 1:
                    gram = [int(IDS[b, t - back]) for back in range(order)]
                    expected[b, t] += table[int(hashed(order, *gram) * 50)]

    torch.testing.assert_close(embedded(model, IDS, cuts), expected)


@pytest.mark.parametrize("cuts", CUTS)
def test_smear(cuts):
    """Each vector has a gated share of the one before it."""
    model = model_of({"use": "smear", "channels": 5})
    e = model.embedding
    x, expected = e.base.weight[IDS], e.base.weight[IDS].clone()
    for b in range(2):
        for t in range(1, 9):
            gate = torch.sigmoid((x[b, t, :5] * e.weight).sum() + e.bias)
            expected[b, t] += gate[0] * x[b, t - 1]

    torch.testing.assert_close(embedded(model, IDS, cuts), expected)


@pytest.mark.parametrize("use", ["ngram", "smear", {"use": "ngram", "base": "smear"}])
def test_documents_are_apart(use):
    """With documents, a separator begins a sequence as if nothing were before it."""
    model = model_of(use)
    alone = embedded(model, IDS[:, 4:])
    model.separator = 7
    ids = IDS.clone().where(IDS != 7, 8)
    ids[:, 4] = 7
    first = IDS[:, 4:].clone().where(IDS[:, 4:] != 7, 8)
    first[:, 0] = 7
    model.separator = None
    alone = embedded(model, first)
    model.separator = 7

    torch.testing.assert_close(embedded(model, ids)[:, 4:], alone)


def test_factorized_and_its_head():
    """Rows of a narrow table, widened; a tied head is the transpose of the whole product."""
    model = model_of({"use": "factorized", "rank": 4})
    e = model.embedding
    whole = e.weight @ e.up.T
    hidden = torch.randn(3, 16, dtype=torch.float64)

    torch.testing.assert_close(embedded(model, IDS), whole[IDS])
    torch.testing.assert_close(model.head_logits(hidden), hidden @ whole.T)
    batch = model.loss(IDS[:, :-1], IDS[:, 1:]).cross_entropy
    logits = model.hidden(IDS[:, :-1]) @ whole.T
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten())
    torch.testing.assert_close(batch, expected)


def test_scaled():
    """Gemma's factor is on the embeddings, not on the logits."""
    model = model_of({"scale": "width"})
    hidden = torch.randn(3, 16, dtype=torch.float64)

    torch.testing.assert_close(embedded(model, IDS), 4 * model.embedding.weight[IDS])
    torch.testing.assert_close(model.head_logits(hidden), hidden @ model.embedding.weight.T)


def test_per_layer_inputs_are_read_by_blocks():
    """Each block's part is `down (gelu(gate x) * its input)`; another width is refused."""
    embedding = {"use": "per_layer", "width": 3}
    model = model_of(embedding, block={"use": "per_layer", "width": 3})
    e, use = model.embedding, model.use(IDS)
    x = model.embed(IDS, use)
    rows, mixed = e.weight[IDS].view(2, 9, 1, 3), (x @ e.mix.T).view(2, 9, 1, 3)
    mixed = mixed / (mixed.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    own = e.inputs(IDS, x, use)["per_layer"]
    torch.testing.assert_close(own, (rows + mixed) / 2**0.5)

    (block,) = model.stack.nodes
    seen = []
    block.per_layer.register_forward_hook(lambda _, given, y: seen.append((given[0], y)))
    model(IDS)
    (given, y), part = seen[0], block.per_layer
    gate = torch.nn.functional.gelu(given @ part.gate.weight.T)
    torch.testing.assert_close(y, (gate * own[:, :, 0]) @ part.down.weight.T)

    with pytest.raises(RecipeError, match=r"reads the input per_layer \(4 wide\).* per_layer \(3"):
        strawberry.build(tiny(BLOCK, embedding=embedding, block={"use": "per_layer", "width": 4}))
    with pytest.raises(RecipeError, match="'tokens' gives none"):
        strawberry.build(tiny(BLOCK, block="per_layer"))


def test_one_without_a_table_has_no_tied_head(tmp_path):
    """A head can't be tied to what has no table; the message names the way out."""
    file = tmp_path / "plain.py"
    file.write_text(PLAIN)
    model = {"vocab_size": 61, "block_size": 16, "n_embd": 16, "embedding": "plain"}
    recipe = recipe_from(
        {"model": {**model, "stack": [BLOCK]}}, "test", plugins=Plugins.load(files=[file])
    )

    with pytest.raises(RecipeError, match=r"no table for a head; write `tie_embeddings: false`"):
        strawberry.build(recipe)
    untied = strawberry.build(patch(recipe, {"model.tie_embeddings": False}))
    assert untied(IDS).shape == (2, 9, 61)


PLAIN = """
from strawberry.contracts import Embedding
from strawberry.plugin import hookimpl


class Plain(Embedding):
    def __init__(self, site):
        super().__init__()
        self.rows = site.table(site.vocab_size, site.n_embd)

    def forward(self, ids, use):
        return self.rows[ids]


@hookimpl
def strawberry_register(registry):
    registry.embedding("plain", Plain)
"""
