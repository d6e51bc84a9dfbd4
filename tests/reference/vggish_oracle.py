"""VGGish in float64 by its definition, tap by tap; NHWC arrays, kernels [3, 3, in, out]."""

import numpy as np


def convolve(x, kernel, bias):
    """3×3, zeros outside: [B, T, F, C] → [B, T, F, D]."""
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            y += padded[:, i:i + height, j:j + width] @ kernel[i, j].astype(np.float64)
    return y


def pool(x):
    """The largest of 2×2."""
    return np.maximum.reduce([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def forward(patches, groups, full, *, final_activation):
    """[B, T, F] → [B, D].

    Args:
      patches: the input.
      groups: for every group, (kernel, bias) of its convolutions.
      full: (kernel [in, out], bias) of the fully connected layers, the embedding last.
      final_activation: whether ReLU follows the embedding.
    """
    x = np.asarray(patches, np.float64)[..., None]
    for group in groups:
        for kernel, bias in group:
            x = np.maximum(convolve(x, kernel, bias), 0)
        x = pool(x)
    x = x.reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(full):
        x = x @ np.asarray(kernel, np.float64) + bias
        if i < len(full) - 1 or final_activation:
            x = np.maximum(x, 0)
    return x
