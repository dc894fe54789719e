#!/usr/bin/env python3
"""PyTorch on the GPU as a peer of sparsight-bench:

    sparsight-bench --device cuda --peer "python3 scripts/peer_gpu.py"

First line out: a name. Then, for each request in, the milliseconds (CUDA events) of one run on
normal random inputs, or "nan" where PyTorch cannot do it (out of memory, no such backend):

    sdpa BACKEND HEADS KV_HEADS N D CAUSAL TYPE    scaled dot product attention: cudnn, flash, efficient
    flex BLOCK FILE HEADS KV_HEADS N D CAUSAL TYPE FlexAttention, blocks kept: bytes [heads, n/block, n/block]
    eager HEADS KV_HEADS N D CAUSAL TYPE           the probability matrix and its product with V
    matmul N TYPE                                  N x N x N product
    copy BYTES                                     device to device
"""
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}


def layer(words):
    heads, kv_heads, n, d, causal = map(int, words[:5])
    make = lambda h: torch.randn(1, h, n, d, device="cuda", dtype=TYPES[words[5]])
    return make(heads), make(kv_heads), make(kv_heads), bool(causal)


def sdpa(words):
    q, k, v, causal = layer(words[1:])
    if words[0] == "efficient":  # knows no grouped heads
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))

    def run():
        with sdpa_kernel(BACKENDS[words[0]]):
            F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
    return run


def flex(words):
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
    block, q_k_v = int(words[0]), layer(words[2:])
    q, k, v, _ = q_k_v
    n = q.shape[2] // block
    with open(words[1], "rb") as file:
        kept = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(1, -1, n, n).cuda().bool()
    diagonal = torch.eye(n, device="cuda", dtype=torch.bool)

    def lists(blocks):
        order = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)
        return blocks.sum(-1).int(), order.int()
    mask = BlockMask.from_kv_blocks(*lists(kept & diagonal), *lists(kept & ~diagonal), BLOCK_SIZE=block,
                                    mask_mod=lambda b, h, i, j: i >= j)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def eager(words):
    q, k, v, causal = layer(words)
    group, n, scale = q.shape[1] // k.shape[1], q.shape[2], q.shape[3] ** -0.5
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    mask = torch.full((n, n), float("-inf"), device="cuda", dtype=q.dtype).triu(1) if causal else 0

    def run():
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) * scale + mask, -1, dtype=torch.float32)
        return torch.matmul(weights.to(q.dtype), v)
    return run


def matmul(words):
    n = int(words[0])
    a, b = (torch.randn(n, n, device="cuda", dtype=TYPES[words[1]]) for _ in "ab")
    return lambda: a @ b


def copy(words):
    a = torch.randn(int(words[0]) // 4, device="cuda")
    b = torch.empty_like(a)
    return lambda: b.copy_(a)


def main():
    print(f"PyTorch {torch.__version__}", flush=True)
    runs = {}
    for line in sys.stdin:
        try:
            if line not in runs:
                # What is timed in turn stays warm; what is older makes room.
                for old in list(runs)[:-5]:
                    del runs[old]
                torch.cuda.empty_cache()
                words = line.split()
                runs[line] = {"sdpa": sdpa, "flex": flex, "eager": eager, "matmul": matmul, "copy": copy}[words[0]](words[1:])
                for _ in range(3):
                    runs[line]()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in "ab")
            start.record()
            runs[line]()
            stop.record()
            stop.synchronize()
            print(start.elapsed_time(stop), flush=True)
        except Exception as error:  # noqa: BLE001: whatever it is, the answer is that it does not run
            print(str(error).splitlines()[0][:200], file=sys.stderr, flush=True)
            runs.pop(line, None)
            torch.cuda.empty_cache()
            print("nan", flush=True)


if __name__ == "__main__":
    main()
