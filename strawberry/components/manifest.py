"""The built-in plugin: the components that `strawberry` itself registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:  # noqa: PLR0915 (a line a component)
    """Register the built-in components."""
    here = "strawberry.components"
    registry.attention("mha", f"{here}.attention.mha:MultiHeadAttention")
    registry.attention("aft_conv", f"{here}.attention.aft_conv:AFTConv")
    registry.attention("aft_full", f"{here}.attention.aft_full:AFTFull")
    registry.attention("aft_local", f"{here}.attention.aft_local:AFTLocal")
    registry.attention("aft_simple", f"{here}.attention.aft_simple:AFTSimple")
    registry.attention("expert_abundance", f"{here}.attention.expert_abundance:ExpertAbundance")
    registry.attention("moe_attention", f"{here}.attention.moe_attention:MoEAttention")
    registry.attention("ngram_heads", f"{here}.attention.ngram_heads:NGramHeads")
    registry.attention("linear", f"{here}.attention.linear:LinearAttention")
    registry.attention("mla", f"{here}.attention.mla:MultiHeadLatentAttention")

    registry.ffn("bilinear", f"{here}.ffn.gated:Bilinear")
    registry.ffn("geglu", f"{here}.ffn.gated:GEGLU")
    registry.ffn("glu", f"{here}.ffn.gated:GLU")
    registry.ffn("channel_mix", f"{here}.ffn.channel_mix:ChannelMix")
    registry.ffn("mlp", f"{here}.ffn.mlp:MLP")
    registry.ffn("moe", f"{here}.ffn.moe:MoE")
    registry.ffn("reglu", f"{here}.ffn.gated:ReGLU")
    registry.ffn("swiglu", f"{here}.ffn.gated:SwiGLU")

    registry.positional("rope", f"{here}.positional.rope:RoPE")
    registry.positional("alibi", f"{here}.positional.alibi:ALiBi")
    registry.positional("sinusoidal", f"{here}.positional.sinusoidal:Sinusoidal")
    registry.positional("t5_bias", f"{here}.positional.t5_bias:T5Bias")
    registry.positional("learned", f"{here}.positional.learned:LearnedPositions")
    registry.positional("none", f"{here}.positional.none:NoPosition")

    registry.loop("random_depth", f"{here}.loop.random_depth:RandomDepth")

    registry.norm("dyt", f"{here}.norm.dyt:DyT")
    registry.norm("none", f"{here}.norm.none:NoNorm")
    registry.norm("rmsnorm", f"{here}.norm.rmsnorm:RMSNorm")
    registry.norm("layernorm", f"{here}.norm.layernorm:LayerNorm")

    registry.router("token_choice", f"{here}.router.token_choice:TokenChoiceRouter")
    registry.router("expert_choice", f"{here}.router.expert_choice:ExpertChoiceRouter")
    registry.router("threshold", f"{here}.router.threshold:ThresholdRouter")

    registry.weights("owned", f"{here}.weights.owned:OwnedWeights")
    registry.weights("factorized", f"{here}.weights.factorized:FactorizedWeights")
    registry.weights("retained", f"{here}.weights.retained:RetainedWeights")
    registry.weights("shared", f"{here}.weights.shared:SharedWeights")
    registry.weights("step_lora", f"{here}.weights.step_lora:StepLoRAWeights")

    registry.optimizer("adamw", f"{here}.optimizer.adamw:AdamW")
    registry.optimizer("muon", f"{here}.optimizer.muon:Muon")
    registry.optimizer("lion", f"{here}.optimizer.lion:Lion")
    registry.optimizer("adafactor", f"{here}.optimizer.adafactor:Adafactor")
    registry.optimizer("sgd", f"{here}.optimizer.sgd:SGD")
    free = f"{here}.optimizer.schedule_free_adamw:ScheduleFreeAdamW"
    registry.optimizer("schedule_free_adamw", free)

    registry.schedule("trapezoid", f"{here}.schedule.trapezoid:Trapezoid")
    registry.schedule("wsd", f"{here}.schedule.wsd:WSD")
    registry.schedule("cosine", f"{here}.schedule.cosine:Cosine")
    registry.schedule("linear", f"{here}.schedule.linear:Linear")
    registry.schedule("inverse_sqrt", f"{here}.schedule.inverse_sqrt:InverseSqrt")
    registry.schedule("constant", f"{here}.schedule.constant:Constant")

    registry.objective("next_token", f"{here}.objective.next_token:NextToken")
    registry.objective("multi_token", f"{here}.objective.multi_token:MultiToken")
    registry.objective("early_exit", f"{here}.objective.early_exit:EarlyExit")
    registry.objective("deep_supervision", f"{here}.objective.deep_supervision:DeepSupervision")
    registry.objective("distillation", f"{here}.objective.distillation:Distillation")
    registry.objective("masked_diffusion", f"{here}.objective.masked_diffusion:MaskedDiffusion")

    registry.curriculum("batch_warmup", f"{here}.curriculum.batch_warmup:BatchWarmup")
    registry.curriculum("length_warmup", f"{here}.curriculum.length_warmup:LengthWarmup")
    registry.curriculum("growing_depth", f"{here}.curriculum.growing_depth:GrowingDepth")

    registry.measure("top_k", f"{here}.measure.top_k:TopK")

    registry.averaging("ema", f"{here}.averaging.ema:EMA")
    registry.averaging("latest", f"{here}.averaging.latest:Latest")

    registry.data("synthetic", f"{here}.data.synthetic:Synthetic")
    registry.data("stdlib", f"{here}.data.stdlib:Stdlib")
    registry.data("text", f"{here}.data.text:TextFiles")
    registry.data("shards", f"{here}.data.shards:ShardFiles")
    registry.data("tokens", f"{here}.data.tokens:Tokens")
    registry.data("mixture", f"{here}.data.mixture:Mixture")
    registry.data("epochs", f"{here}.data.epochs:Epochs")

    registry.tokenizer("bpe", f"{here}.tokenizer.bpe:BPE")
    registry.tokenizer("bytes", f"{here}.tokenizer.bytes:ByteTokenizer")

    fuzzy = f"{here}.task.fuzzy_in_context_recall:FuzzyInContextRecall"
    noisy = f"{here}.task.in_context_recall:NoisyInContextRecall"
    registry.task("mqar", f"{here}.task.mqar:MQAR")
    registry.task("induction_heads", f"{here}.task.induction_heads:InductionHeads")
    registry.task("in_context_recall", f"{here}.task.in_context_recall:InContextRecall")
    registry.task("noisy_in_context_recall", noisy)
    registry.task("fuzzy_in_context_recall", fuzzy)
    registry.task("selective_copying", f"{here}.task.selective_copying:SelectiveCopying")
    registry.task("compression", f"{here}.task.compression:Compression")
    registry.task("memorization", f"{here}.task.memorization:Memorization")
    registry.task("dyck", f"{here}.task.dyck:Dyck")
    registry.task("modular_sums", f"{here}.task.modular_sums:ModularSums")
    registry.task("state_tracking", f"{here}.task.state_tracking:StateTracking")
    registry.task("letter_counting", f"{here}.task.letter_counting:LetterCounting")

    registry.executor("local", f"{here}.executor.local:LocalExecutor")
    registry.residual("sum", f"{here}.residual.sum:SumResidual")
    registry.residual("attention", f"{here}.residual.attention:AttentionResidual")
    registry.block("sequential", f"{here}.block.sequential:SequentialBlock")
    registry.block("parallel", f"{here}.block.parallel:ParallelBlock")
    registry.parametrization("standard", f"{here}.parametrization.standard:Standard")
    registry.parametrization("mup", f"{here}.parametrization.mup:MuP")
    registry.parametrization("complete_p", f"{here}.parametrization.complete_p:CompleteP")
    registry.parametrization("u_mup", f"{here}.parametrization.u_mup:UMuP")
    registry.block("per_layer", f"{here}.block.per_layer:PerLayerBlock")
    registry.embedding("tokens", f"{here}.embedding.tokens:TokenTable")
    registry.embedding("factorized", f"{here}.embedding.factorized:FactorizedEmbedding")
    registry.embedding("ngram", f"{here}.embedding.ngram:NGramEmbedding")
    registry.embedding("smear", f"{here}.embedding.smear:SmearedEmbedding")
    registry.embedding("per_layer", f"{here}.embedding.per_layer:PerLayerEmbedding")
