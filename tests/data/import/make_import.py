"""Makes the files of this folder with numpy, h5py, safetensors and torch: q, k and v of random heads in every layout that
the importer reads, each with the LSE that float64 numpy computes from them. Versions in ../README.md."""
import io
import json
import pickle
import zipfile

import h5py
import numpy as np
import torch
from safetensors.numpy import save_file

rng = np.random.default_rng(20261125)
L, HQ, HKV, N, D = 2, 4, 2, 37, 8


def heads(layers=L, hq=HQ, hkv=HKV, nq=N, nk=N, d=D):
    q = rng.standard_normal((layers, hq, nq, d)).astype(np.float32) * 2
    k = rng.standard_normal((layers, hkv, nk, d)).astype(np.float32)
    v = rng.standard_normal((layers, hkv, nk, d)).astype(np.float32)
    return q, k, v


def lse(q, k, causal=True, scale=None, softcap=0, window=0):
    """[.., Hq, Nq] of q [.., Hq, Nq, d] and k [.., Hkv, Nk, d]; no sinks."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    s = np.einsum("...qd,...kd->...qk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        s = softcap * np.tanh(s / softcap)
    nq, nk = s.shape[-2:]
    at, key = np.arange(nq)[:, None] + nk - nq, np.arange(nk)[None, :]
    hidden = (key > at) if causal else np.zeros((nq, nk), bool)
    if window:
        hidden |= key <= at - window
    s = np.where(hidden, -np.inf, s)
    m = s.max(-1, keepdims=True)
    return (m + np.log(np.exp(s - m).sum(-1, keepdims=True)))[..., 0]


def bf16(x):
    """Rounded to nearest even, as bits."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


# All layers in one array, stored.
q, k, v = heads()
np.savez("stacked.npz", q=q, k=k, v=v, lse=lse(q, k))

# An array per layer, float16, deflated.
q, k, v = (x.astype(np.float16) for x in heads())
arrays = {"input_ids": np.arange(100, 100 + N, dtype=np.int64)}
for i in range(L):
    arrays.update({f"l{i}_q": q[i], f"l{i}_k": k[i], f"l{i}_v": v[i], f"l{i}_lse": lse(q[i], k[i]).astype(np.float32)})
np.savez_compressed("layers.npz", **arrays)

# float64, Fortran order, [L, T, H, d]; LSE [L, T, H]. Format versions 2.0 and 3.0.
q, k, v = (x.astype(np.float64) for x in heads())
turned = lambda x: np.asfortranarray(x.swapaxes(-2, -3))
for name, x, version in (("turned_q", turned(q), (1, 0)), ("turned_k", turned(k), (2, 0)), ("turned_v", turned(v), (3, 0)),
                         ("turned_lse", lse(q, k).swapaxes(-1, -2).copy(), (1, 0))):
    with open(f"{name}.npy", "wb") as f:
        np.lib.format.write_array(f, x, version=version)

# bfloat16 as uint16, one head without a head axis, and two raw bytes for the keys.
q, k, _ = heads(1, 1, 1)
qb, kb = bf16(q), bf16(k)
np.savez("bf16.npz", q=qb[0, 0], k=kb[0, 0].view("V2"), lse=lse(from_bf16(qb), from_bf16(kb))[0, 0])

# Cross-attention: more queries than keys, every key seen.
q, k, v = heads(1, 2, 2, 50, 21)
np.savez("cross.npz", **{"layer.0.q": q[0], "layer.0.k": k[0], "layer.0.v": v[0], "layer.0.lse": lse(q, k, causal=False)[0]})

# The last 5 queries of 37 tokens.
q, k, v = heads(1, 2, 2, 5, N)
np.savez("chunk.npz", q=q[0], k=k[0], v=v[0], lse=lse(q, k)[0])

# HDF5: a dataset per head, chunked and compressed; one contiguous in big-endian; a link to another file.
q, k, v = heads()
with h5py.File("heads.h5", "w") as f:
    for i in range(L):
        for h in range(HQ):
            f.create_dataset(f"model/layers/{i}/head{h}/q", data=q[i, h], chunks=(16, D), compression="gzip", shuffle=True)
        for h in range(HKV):
            f[f"model/layers/{i}/head{h}/k"] = k[i, h].astype(">f4")
            f[f"model/layers/{i}/head{h}/v"] = v[i, h]
        f[f"model/layers/{i}/lse"] = lse(q[i], k[i])
    f["elsewhere"] = h5py.ExternalLink("other.h5", "/q")

# All the hook can say: window, soft-cap, sinks, scale.
q, k, v = heads()
tensors = {}
for i in range(L):
    tensors.update({f"layer.{i}.q": q[i], f"layer.{i}.k": k[i], f"layer.{i}.v": v[i]})
    tensors[f"layer.{i}.sinks"] = rng.standard_normal(HQ).astype(np.float32)
    tensors[f"layer.{i}.lse"] = lse(q[i], k[i], scale=0.5, softcap=6.0, window=[9, 0][i]).astype(np.float32)
about = [dict(module=f"m{i}", scaling=0.5, softcap=6.0, window=[9, None][i], causal=True) for i in range(L)]
save_file(tensors, "hook.safetensors", metadata={"sparsight": json.dumps(dict(version=1, model="some/tiny", layers=about))})

# What is refused.
np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
np.save("bigendian.npy", np.zeros((2, 3, 4), ">f4"))
with open("tensors.pkl", "wb") as f:
    pickle.dump({"q": [1.0, 2.0]}, f)
torch.save({"q": torch.zeros(2, 3, 4)}, "torch.bin")
np.savez("maps.npz", attention=np.full((1, 2, 4, 4), 0.25, np.float32))
# A wrong checksum in an otherwise sound zip.
data = io.BytesIO()
q, k, v = heads(1)
np.savez(data, q=q, k=k)
raw = bytearray(data.getvalue())
at = raw.index(b"\x93NUMPY") + 200
raw[at] ^= 0x55
open("flipped.npz", "wb").write(raw)
assert zipfile.ZipFile("flipped.npz").testzip() == "q.npy"
