"""One model over several processes (ranks), by torch's own engines.

`world` joins the ranks and lets them agree; `engine` lets them share a model (DDP, FSDP2); `shards`
saves and loads what they hold in parts; `launch` starts them on this machine; `memory` says what
each will need. One process is the case in which all of these do nothing.

A recipe means the same on any number of ranks: its `batch_size` is that of all of them together,
each takes its rows of it, and losses are means over the whole batch.
"""
