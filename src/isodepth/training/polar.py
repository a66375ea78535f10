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
    """U Vᵀ, roughly, of each U S Vᵀ in `matrices`, [n, rows, columns].

    In bf16 on CUDA as published; in fp32 on the CPU, whose bf16 products crawl on most machines.
    There, matrices with one side at least twice the other go by their Gram matrices, which costs
    less: with sides n and 4n, 50 n³ instead of 90 n³.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    if not matrices.is_cuda and wide.shape[2] >= 2 * wide.shape[1]:
        factor = _gram_factor(wide)
        return matrices @ factor if tall else factor @ matrices
    out = _direct(wide, torch.bfloat16 if matrices.is_cuda else matrices.dtype)
    return out.mT if tall else out


def _shrink(matrices: Tensor) -> Tensor:
    """What every matrix is divided by first, [n, 1, 1], to bring its singular values below 1."""
    norm: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return norm * SAFETY + EPS


def _direct(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    x: Tensor = (matrices / _shrink(matrices)).to(dtype)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def _gram_factor(matrices: Tensor) -> Tensor:
    """The symmetric Q of the same polynomials' Q X: Q = P₅ … P₁, Pₖ = aI + bA + cA², A = Xₖ Xₖᵀ.

    All of them commute, so that Xₖ₊₁ Xₖ₊₁ᵀ = A Pₖ²: after the first product nothing is wider than
    it is high until Q meets X. Squaring halves the digits of the small singular values, in Q only,
    where P is flat; fp32 has them to spare, bf16 has not.
    """
    shrink = _shrink(matrices)
    gram = (matrices @ matrices.mT).div_(shrink.square())
    product: Tensor | None = None
    for step, (a, b, c) in enumerate(COEFFICIENTS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < len(COEFFICIENTS):
            gram = factor @ (factor @ gram)
    assert product is not None
    return product.div_(shrink)
