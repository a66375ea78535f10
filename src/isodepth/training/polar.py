"""Orthogonalisation by Polar Express (Amsel et al., arXiv 2505.16932), five steps."""

import torch
from torch import Tensor

# Odd polynomials a x + b x³ + c x⁵, one per step (arXiv 2505.16932, with the released code's
# safety factor of 2%, which the first division repeats).
COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
SAFETY = 1.02
EPS = 1e-6


def orthogonalise(matrices: Tensor) -> Tensor:
    """U Vᵀ, roughly, of each U S Vᵀ in `matrices`, [n, rows, columns] with rows ≤ columns.

    In bf16 on CUDA as published; in fp32 on the CPU, whose bf16 products crawl.
    """
    dtype = torch.bfloat16 if matrices.is_cuda else matrices.dtype
    norm = matrices.norm(dim=(1, 2), keepdim=True)
    x: Tensor = (matrices / (norm * SAFETY + EPS)).to(dtype)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)
