#!/usr/bin/env python3
"""PyTorch's scaled dot product attention as a peer of sparsight-bench:

    sparsight-bench --filter dense --peer "python3 scripts/peer_sdpa.py"

First line out: a name. Then, for each line "heads kvHeads nq nk d causal threads" in, the
milliseconds of one forward on normal random float32 inputs."""
import sys
import time

import torch
import torch.nn.functional as F


def main():
    print(f"PyTorch {torch.__version__} SDPA", flush=True)
    known = None
    for line in sys.stdin:
        if line != known:
            heads, kv_heads, nq, nk, d, causal, threads = map(int, line.split())
            torch.set_num_threads(threads)
            q = torch.randn(1, heads, nq, d)
            k, v = (torch.randn(1, kv_heads, nk, d).repeat_interleave(heads // kv_heads, 1) for _ in "kv")
            mask = None
            if causal and nq != nk:  # PyTorch aligns its causal mask to the top left
                mask = torch.ones(nq, nk, dtype=torch.bool).tril(nk - nq)
            arguments = dict(attn_mask=mask, is_causal=bool(causal) and mask is None)
            known = line
            with torch.inference_mode():
                F.scaled_dot_product_attention(q, k, v, **arguments)
        with torch.inference_mode():
            start = time.perf_counter()
            F.scaled_dot_product_attention(q, k, v, **arguments)
            print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    main()
