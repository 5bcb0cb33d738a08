"""FLOPs of what torch's counter does not know on a CPU."""

import torch
from torch.utils.flop_counter import sdpa_flop_count


def attention_flops_on_cpu():
    """The formula of the fused attention that a CPU runs, as torch has it for other devices."""

    def count(query, key, value, *_, **__):
        # Grouped heads arrive as they are: each query head has its own scores.
        key, value = (shape[:1] + query[1:2] + shape[2:] for shape in (key, value))
        return sdpa_flop_count(query, key, value)

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: count}
